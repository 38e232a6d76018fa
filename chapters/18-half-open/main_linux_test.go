package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not have.
const tcpUserTimeout = 18

// noting is a listener that remembers the connection which it has accepted, and
// may hand on a wrapper, as one that counts or limits connections does.
type noting struct {
	net.Listener
	tcp  chan *net.TCPConn
	wrap bool
}

func (n noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.tcp <- c.(*net.TCPConn)
	}
	if err == nil && n.wrap {
		c = struct{ net.Conn }{c}
	}
	return c, err
}

// clientsSocket looks among this process's sockets for the other end of a
// connection on loopback.
func clientsSocket(server *net.TCPConn) int {
	want := server.RemoteAddr().(*net.TCPAddr).Port
	for fd := range 1024 {
		own, err := syscall.Getsockname(fd)
		if own, ok := own.(*syscall.SockaddrInet4); err == nil && ok && own.Port == want {
			return fd
		}
	}
	return -1
}

// What Linux does about a dead peer beside gRPC is a matter of these options.
func TestWhatTheSocketsHaveSetOverTCP(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_time")
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	type options struct{ keepalive, idle, interval, userTimeout int } // 0 or 1, s, s, ms
	const own = "own dialer, wrapped listener"
	plain := asks(20*time.Second, 10*time.Second)
	plain.name = own
	plain.client = append(plain.client, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}))
	for _, tt := range []struct {
		setup
		client, server options
	}{
		{setup{name: "nothing is set"}, options{1, system, 0, 0}, options{1, 15, 15, 20000}},
		{asks(20*time.Second, 10*time.Second), options{1, system, 0, 10000}, options{1, 15, 15, 10000}},
		{plain, options{1, 15, 0, 10000}, options{1, 15, 15, 0}},
	} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accepted := noting{lis, make(chan *net.TCPConn, 1), tt.name == own}
		srv := grpc.NewServer(tt.setup.server...)
		feedv1.RegisterFeedServiceServer(srv, &feed{})
		go srv.Serve(accepted)
		defer srv.Stop()
		conn, err := grpc.NewClient(lis.Addr().String(), append(tt.setup.client, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		feedv1.NewFeedServiceClient(conn).Publish(ctx, &feedv1.PublishRequest{}) // Unimplemented: both ends are up
		tcp := <-accepted.tcp

		read := func(fd int) (got options) {
			for option, value := range map[[2]int]*int{
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}:   &got.keepalive,
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE}:  &got.idle,
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL}: &got.interval,
				{syscall.IPPROTO_TCP, tcpUserTimeout}:        &got.userTimeout,
			} {
				if *value, err = syscall.GetsockoptInt(fd, option[0], option[1]); err != nil {
					t.Error(err)
				}
			}
			return got
		}
		var client, server options
		client = read(clientsSocket(tcp))
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { server = read(int(fd)) })
		}
		if err != nil {
			t.Fatal(err)
		}
		tt.client.interval = client.interval // the system's, whatever it is
		if client != tt.client || server != tt.server {
			t.Errorf("%s: the client's socket has %+v, the server's %+v, want %+v and %+v", tt.name, client, server, tt.client, tt.server)
		}
		t.Logf("%s: client %+v, server %+v", tt.name, client, server)
	}
}
