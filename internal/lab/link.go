package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// Window is the flow-control window, in bytes, that the lab gives each stream
// and each connection in both directions. It is HTTP/2's own default, fixed:
// grpc-go's estimator would change it while a test counts.
const Window = 65535

// Latency is the one-way delay of a link unless the test asks for another. It
// lies off every grid that tests use for their own timers, so that two
// independent events never fall on one instant.
const Latency = 5137 * time.Microsecond

// A Link is the network between one server address and its clients.
type Link struct {
	lab       *Lab
	latency   time.Duration
	bandwidth int
	bdp       bool
	wire      recorder

	mu    sync.Mutex
	state linkState
	black atomic.Bool   // state is blackhole; read by pipes, which must not take mu
	heal  chan struct{} // closed by Heal
	conns []net.Conn
	lis   *listener
	tcp   net.Listener
}

type linkState int

const (
	up linkState = iota
	cut
	blackhole
)

// A LinkOption shapes a link.
type LinkOption func(*Link)

// WithLatency sets the one-way delay.
func WithLatency(d time.Duration) LinkOption { return func(k *Link) { k.latency = d } }

// WithBandwidth bounds each direction of each connection to n bytes a second.
func WithBandwidth(n int) LinkOption { return func(k *Link) { k.bandwidth = n } }

// WithBDP leaves the windows to grpc-go's bandwidth-delay estimator, which is
// what a program without window options has (internal/transport/bdp_estimator.go).
func WithBDP() LinkOption { return func(k *Link) { k.bdp = true } }

// NewLink makes a link. Nothing listens on it until Serve.
func (l *Lab) NewLink(opts ...LinkOption) *Link {
	k := &Link{lab: l, latency: Latency, heal: make(chan struct{})}
	k.wire.settled = make(chan struct{})
	for _, opt := range opts {
		opt(k)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links = append(l.links, k)
	l.grace = max(l.grace, grace+4*k.latency)
	return k
}

// Connect is the short way to what most tests need: svc served on a link of
// its own, and one connection to it that is up.
func (l *Lab) Connect(svc feedv1.FeedServiceServer, opts ...LinkOption) (feedv1.FeedServiceClient, *Link) {
	l.Helper()
	k := l.NewLink(opts...)
	k.Serve(svc)
	return feedv1.NewFeedServiceClient(k.Dial()), k
}

// Serve starts a server for svc at the link's far end. The lab stops it when
// the test ends; a test may stop it earlier and Serve again.
func (k *Link) Serve(svc feedv1.FeedServiceServer, opts ...grpc.ServerOption) *grpc.Server {
	k.lab.Helper()
	own := []grpc.ServerOption{grpc.ChainUnaryInterceptor(k.lab.recoverUnary), grpc.ChainStreamInterceptor(k.lab.recoverStream)}
	if !k.bdp {
		own = append(own, grpc.StaticStreamWindowSize(Window), grpc.StaticConnWindowSize(Window))
	}
	srv := grpc.NewServer(append(own, opts...)...)
	feedv1.RegisterFeedServiceServer(srv, svc)
	lis, err := k.listen()
	if err != nil {
		k.lab.Fatalf("lab: %v", err)
	}
	k.lab.mu.Lock()
	defer k.lab.mu.Unlock()
	k.lab.servers = append(k.lab.servers, srv)
	go srv.Serve(lis)
	return srv
}

// Dial opens a connection over the link and returns when it is up and idle:
// settings have been exchanged and acknowledged. The first Dial of a link also
// starts its recording. The lab closes the connection when the test ends.
func (k *Link) Dial(opts ...grpc.DialOption) *grpc.ClientConn {
	k.lab.Helper()
	own := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return k.dial(ctx) }),
	}
	if !k.bdp {
		own = append(own, grpc.WithStaticStreamWindowSize(Window), grpc.WithStaticConnWindowSize(Window))
	}
	// The lab counts innermost: an interceptor of the test may open a stream
	// more than once.
	opts = append(append(own, opts...),
		grpc.WithChainUnaryInterceptor(k.lab.calls.unary), grpc.WithChainStreamInterceptor(k.lab.calls.stream))
	conn, err := grpc.NewClient("passthrough:///lab", opts...)
	if err != nil {
		k.lab.Fatalf("lab: %v", err)
	}
	k.lab.mu.Lock()
	k.lab.conns = append(k.lab.conns, conn)
	k.lab.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			k.lab.Fatalf("lab: the connection is still %v after 20s", state)
		}
	}
	<-k.wire.settled
	time.Sleep(2 * k.latency) // the acknowledgements arrive
	k.wire.begin.Do(k.wire.mark)
	return conn
}

// Cut resets every connection of the link, as a router does that lost its
// state: both ends know at once, and what was on the way is lost. Dials are
// refused until Heal.
func (k *Link) Cut() {
	k.mu.Lock()
	k.lift()
	k.state = cut
	conns := k.conns
	k.conns = nil
	k.mu.Unlock()
	for _, c := range conns {
		switch c := c.(type) {
		case *virtualConn:
			c.reset()
		case *net.TCPConn:
			c.SetLinger(0) // makes Close send a RST
			c.Close()
		}
	}
}

// Blackhole makes the link swallow everything from now on, and tells nobody.
// Dials hang until Heal.
func (k *Link) Blackhole() {
	if !k.lab.virtual {
		panic("lab: a black hole needs the virtual network")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = blackhole
	k.black.Store(true)
	for _, c := range k.conns {
		c.(*virtualConn).in.blackhole()
	}
}

// Heal ends Cut and Blackhole. What a black hole swallowed arrives now, as it
// would by TCP's retransmissions.
func (k *Link) Heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = up
	if k.lift() {
		for _, c := range k.conns {
			c.(*virtualConn).in.heal()
		}
	}
}

// lift ends a black hole for what is sent and dialed from now on.
func (k *Link) lift() bool {
	if !k.black.Swap(false) {
		return false
	}
	close(k.heal)
	k.heal = make(chan struct{})
	return true
}

func (k *Link) listen() (net.Listener, error) {
	if !k.lab.virtual {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		k.tcp = lis
		return lis, nil
	}
	lis := &listener{backlog: make(chan net.Conn), closed: make(chan struct{})}
	k.mu.Lock()
	k.lis = lis
	k.mu.Unlock()
	return lis, nil
}

// dial returns the client's end of a new connection whose bytes are recorded.
// It takes one round trip, as TCP's handshake does.
func (k *Link) dial(ctx context.Context) (net.Conn, error) {
	if !k.lab.virtual {
		return k.dialTCP(ctx)
	}
	if err := sleep(ctx, 2*k.latency); err != nil {
		return nil, err
	}
	for {
		k.mu.Lock()
		state, heal, lis := k.state, k.heal, k.lis
		k.mu.Unlock()
		switch {
		case state == blackhole:
			select {
			case <-heal:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case state == cut || lis == nil:
			return nil, refused()
		}
		wire := k.wire.connection()
		up, down := newPipe(k), newPipe(k)
		client, server := &virtualConn{in: down, out: up}, &virtualConn{in: up, out: down}
		select {
		case lis.backlog <- &tapped{Conn: server, on: wire, side: Server}:
		case <-lis.closed:
			return nil, refused()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		k.mu.Lock()
		k.conns = append(k.conns, client, server)
		k.mu.Unlock()
		return &tapped{Conn: client, on: wire, side: Client}, nil
	}
}

// dialTCP connects to the loopback listener. The server's frames are recorded
// where the client reads them.
func (k *Link) dialTCP(ctx context.Context) (net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == cut {
		return nil, refused()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", k.tcp.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	k.conns = append(k.conns, c)
	return &tapped{Conn: c, on: k.wire.connection(), side: Client, tcp: k.lab}, nil
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "lab", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listener hands the server its ends of the virtual connections.
type listener struct {
	backlog chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	err := errors.New("closed twice")
	l.once.Do(func() { close(l.closed); err = nil })
	return err
}

func (l *listener) Addr() net.Addr { return address{} }
