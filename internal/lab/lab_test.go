package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// victims are tests that must fail. Each runs in a process of its own, by
// TestVerdicts, because some take their process down.
func victims() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"abandoned stream": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				client.Chat(context.Background()) // VICTIM
			})
		},
		"three abandoned streams": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				for range 3 {
					client.Chat(context.Background()) // VICTIM
				}
			})
		},
		"abandoned stream to a handler in Send": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: func(s chatServer) error {
					for {
						if err := s.Send(sized(1024)); err != nil { // HANDLER
							return err
						}
					}
				}})
				client.Chat(context.Background()) // VICTIM
			})
		},
		"deaf handler": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: func(s chatServer) error {
					<-make(chan bool) // HANDLER
					return nil
				}})
				ctx, cancel := context.WithCancel(context.Background())
				client.Chat(ctx)
				cancel()
			})
		},
		"goroutine left": func(t *testing.T) {
			Run(t, func(l *Lab) {
				out := make(chan int)
				go func() { // STARTED
					out <- 1 // VICTIM
				}()
			})
		},
		"goroutine left in a WaitGroup": func(t *testing.T) {
			Run(t, func(l *Lab) {
				var wg sync.WaitGroup
				out := make(chan int)
				wg.Go(func() {
					out <- 1 // VICTIM
				})
			})
		},
		"connection left": func(t *testing.T) {
			Run(t, func(l *Lab) {
				if _, err := grpc.NewClient("passthrough:///lab", grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
					l.Fatal(err)
				}
			})
		},
		"answer that waits for ever": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				l.Call("answer", time.Minute, func() {
					stream, _ := client.Chat(context.Background())
					stream.Recv() // VICTIM
				})
			})
		},
		"answer that panics": func(t *testing.T) {
			Run(t, func(l *Lab) {
				l.Call("answer", time.Minute, func() {
					var nobody *service
					_ = nobody.chat // VICTIM
				})
			})
		},
		"handler that panics": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: func(chatServer) error {
					panic("oh") // HANDLER
				}})
				stream, _ := client.Chat(context.Background())
				stream.Recv()
			})
		},
		"body that panics": func(t *testing.T) {
			Run(t, func(l *Lab) {
				panic("oh") // VICTIM
			})
		},
		"body that waits for ever": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				stream, _ := client.Chat(context.Background())
				go func() {
					for {
						time.Sleep(time.Second) // HANDLER
					}
				}()
				stream.Recv() // VICTIM
			})
		},
		"spin": func(t *testing.T) {
			Run(t, func(l *Lab) {
				for time.Since(l.start) < time.Second { // VICTIM
				}
			}, RealLimit(500*time.Millisecond))
		},
		"spin in a handler": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: func(s chatServer) error {
					for s.Context() != nil { // HANDLER
					}
					return nil
				}})
				stream, _ := client.Chat(context.Background())
				stream.Recv()
			}, RealLimit(500*time.Millisecond))
		},
		"mutex deadlock": func(t *testing.T) {
			Run(t, func(l *Lab) {
				var mu sync.Mutex
				mu.Lock()
				mu.Lock() // VICTIM
			}, RealLimit(500*time.Millisecond))
		},
		"stream left by an interceptor": func(t *testing.T) {
			Run(t, func(l *Lab) {
				k := l.NewLink()
				k.Serve(service{chat: func(chatServer) error { return nil }})
				client := feedv1.NewFeedServiceClient(k.Dial(grpc.WithChainStreamInterceptor(openTwice)))
				stream, _ := client.Chat(context.Background()) // VICTIM
				stream.Recv()
			})
		},
		"stream of somebody else's connection": func(t *testing.T) {
			Run(t, func(l *Lab) {
				k := l.NewLink()
				k.Serve(service{chat: func(chatServer) error { return nil }})
				conn, _ := grpc.NewClient("passthrough:///lab", grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return k.dial(ctx) }))
				l.conns = append(l.conns, conn)
				feedv1.NewFeedServiceClient(conn).Chat(context.Background())
			})
		},
		"context that is never cancelled": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: echo})
				ctx, cancel := context.WithTimeout(l.Context(), time.Minute) // VICTIM
				chat(ctx, client, "hello")
				_ = cancel
			})
		},
		"AfterFunc that is never stopped": func(t *testing.T) {
			Run(t, func(l *Lab) {
				context.AfterFunc(l.Context(), func() {}) // VICTIM
			})
		},
		"stream on a context that the test does not own": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				client.Chat(l.Context()) // VICTIM
			})
		},
		"goroutine in a deep recursion": func(t *testing.T) {
			Run(t, func(l *Lab) {
				go deep(200, func() { // STARTED
					<-make(chan bool) // VICTIM
				})
			})
			Run(t, func(l *Lab) {}) // the goroutine is still there
		},
		"body that ends its goroutine": func(t *testing.T) { Run(t, func(*Lab) { runtime.Goexit() }) },
		"answer that ends its goroutine": func(t *testing.T) {
			Run(t, func(l *Lab) { l.Call("answer", time.Minute, func() { runtime.Goexit() }) })
		},
		"answer that sleeps on the test's grid": func(t *testing.T) {
			for range 20 {
				Run(t, func(l *Lab) {
					l.Call("answer", time.Minute, func() {
						for {
							time.Sleep(100 * time.Millisecond) // VICTIM
						}
					})
				})
			}
		},
		"mutex deadlock in a go statement": func(t *testing.T) {
			Run(t, func(l *Lab) {
				var mu sync.Mutex
				mu.Lock()
				go mu.Lock()            // STARTED
				time.Sleep(time.Second) // VICTIM
			}, RealLimit(500*time.Millisecond))
		},
		"failure before a spin": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				l.Call("answer", time.Minute, func() {
					for { // reconnects without a pause
						stream, err := client.Chat(context.Background())
						if err == nil {
							stream.Recv() // VICTIM
						}
					}
				})
			}, RealLimit(500*time.Millisecond))
		},
		"failure before messages without end": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: echo})
				stream, _ := client.Chat(l.Context())
				l.Errorf("the first failure")
				for {
					stream.Send(&feedv1.ChatMessage{})
					stream.Recv()
				}
			}, Lasts(100*365*24*time.Hour), RealLimit(250*time.Millisecond))
		},
		"deaf handler of a server that waits for handlers": func(t *testing.T) {
			Run(t, func(l *Lab) {
				k := l.NewLink()
				k.Serve(service{chat: func(s chatServer) error {
					for {
						time.Sleep(time.Second) // HANDLER
					}
				}}, grpc.WaitForHandlers(true))
				client := feedv1.NewFeedServiceClient(k.Dial())
				ctx, cancel := context.WithCancel(context.Background())
				client.Chat(ctx)
				cancel()
			})
		},
		"program that leaves a goroutine": func(t *testing.T) {
			EndsWell(t, func(ctx context.Context, w io.Writer, _ time.Duration) error {
				fmt.Fprint(w, "one\ntwo\n")
				if ctx.Err() != nil {
					go func() { // STARTED
						<-make(chan bool) // VICTIM
					}()
				}
				return nil
			})
		},
		"program that fails": func(t *testing.T) {
			EndsWell(t, func(_ context.Context, w io.Writer, _ time.Duration) error {
				fmt.Fprintln(w, "one")
				return errors.New("no")
			})
		},
		"program that is deaf to an interrupt": func(t *testing.T) {
			EndsWell(t, func(_ context.Context, w io.Writer, pace time.Duration) error {
				fmt.Fprintln(w, "one")
				time.Sleep(pace) // VICTIM
				fmt.Fprintln(w, "two")
				return nil
			}, RealLimit(time.Second))
		},
		"skip": func(t *testing.T) {
			Run(t, func(l *Lab) {
				l.SkipNow() // VICTIM
			})
		},
		"failing answer that also leaks": func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, _ := l.Connect(service{chat: untilCancelled})
				client.Chat(context.Background())
				l.Fatalf("the first failure")
			})
		},
		"failing answer that leaves goroutines": func(t *testing.T) {
			Run(t, func(l *Lab) {
				go func() { <-make(chan bool) }()
				l.Fatalf("the first failure")
			})
			t.Log("the test goes on")
		},
	}
}

// deep calls f at the end of n calls.
func deep(n int, f func()) {
	if n > 0 {
		deep(n-1, f)
		return
	}
	f()
}

var victim = flag.String("victim", "", "run this victim; see TestVerdicts")

func TestVictim(t *testing.T) {
	if f := victims()[*victim]; f != nil {
		f(t)
	}
}

// Each failure has a verdict that says what happened and where, and nothing
// beside it. VICTIM, HANDLER and STARTED stand for the lines of lab_test.go that
// carry that word in a comment.
func TestVerdicts(t *testing.T) {
	source, err := os.ReadFile("lab_test.go")
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{
		"abandoned stream": `
1 of 1 RPCs never ended (Chat, opened at VICTIM)
the server's Chat handler still runs: blocked receiving from a channel at services_test.go`,
		"three abandoned streams": `
3 of 3 RPCs never ended (Chat, opened at VICTIM (3 times))
the server's Chat handler still runs: blocked receiving from a channel at services_test.go (3 times)`,
		"abandoned stream to a handler in Send": `
1 of 1 RPCs never ended (Chat, opened at VICTIM)
the server's Chat handler still runs: blocked in Send at HANDLER`,
		"deaf handler":                  `the server's Chat handler still runs: blocked receiving from a channel at HANDLER`,
		"goroutine left":                `a goroutine that was started at STARTED still runs: blocked sending to a channel at VICTIM`,
		"goroutine left in a WaitGroup": `a goroutine that was started by sync.(*WaitGroup).Go still runs: blocked sending to a channel at VICTIM`,
		"connection left":               `after everything was closed: a grpc.ClientConn was not closed (3 times)`,
		"answer that waits for ever":    "answer has not returned after 1m0s:\nblocked in Recv at VICTIM\nblocked receiving from a channel at services_test.go",
		"answer that panics":            `answer panicked: runtime error: invalid memory address or nil pointer dereference (VICTIM)`,
		"handler that panics":           `the Chat handler panicked: oh (HANDLER)`,
		"body that panics":              `the test panicked: oh (VICTIM)`,
		"body that waits for ever":      "the test has not returned after 10m0s:\nblocked in Recv at VICTIM\nblocked receiving from a channel at services_test.go\nsleeping at HANDLER",
		"spin":                          "the test has not ended after 500ms of real time:\nrunning without a pause at VICTIM",
		"spin in a handler":             "the test has not ended after 500ms of real time:\nrunning without a pause at HANDLER",
		"mutex deadlock":                "the test has not ended after 500ms of real time:\nblocked in Lock at VICTIM",
		"stream left by an interceptor": `
1 of 2 RPCs never ended (Chat, opened at services_test.go)`,
		"stream of somebody else's connection": `1 streams never ended that were opened past the lab's own connections`,
		"context that is never cancelled":      `the context made at VICTIM was never cancelled`,
		"AfterFunc that is never stopped":      `the context.AfterFunc of VICTIM was never stopped`,
		"stream on a context that the test does not own": `
1 of 1 RPCs never ended (Chat, opened at VICTIM)
the server's Chat handler still runs: blocked receiving from a channel at services_test.go`,
		"goroutine in a deep recursion":                    `a goroutine that was started at STARTED still runs: blocked receiving from a channel at VICTIM`,
		"body that ends its goroutine":                     `the test ended in runtime.Goexit`,
		"answer that ends its goroutine":                   `answer ended in runtime.Goexit`,
		"answer that sleeps on the test's grid":            strings.Repeat("answer has not returned after 1m0s:\nsleeping at VICTIM\n", 20),
		"mutex deadlock in a go statement":                 "the test has not ended after 500ms of real time:\nblocked in Lock, started at STARTED\nsleeping at VICTIM",
		"failure before a spin":                            "answer has not returned after 1m0s:\nblocked in Recv at VICTIM\nblocked receiving from a channel at services_test.go",
		"failure before messages without end":              "the first failure",
		"deaf handler of a server that waits for handlers": `the server's Chat handler still runs: sleeping at HANDLER`,
		"program that leaves a goroutine":                  "2 lines in 0s\ninterrupted at line 1 (0 is never), run left 0 open streams and a goroutine that was started at STARTED still runs: blocked receiving from a channel at VICTIM",
		"program that fails":                               "run printed 1 lines and returned error no",
		"program that is deaf to an interrupt":             "the test has not ended after 1s of real time:\nsleeping at VICTIM",
		"skip":                                             `the test panicked: lab: tests are not skipped (VICTIM)`,
		"failing answer that also leaks":                   `the first failure`,
		"failing answer that leaves goroutines":            "the first failure\nthe test goes on",
	}
	for name := range victims() {
		if verdicts[name] == "" {
			t.Errorf("no verdict is expected of victim %q", name)
		}
	}
	for name, want := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some take their limit in real time
			_, section, ok := strings.Cut(string(source), strconv.Quote(name)+": func(")
			if !ok {
				t.Fatal("there is no such victim")
			}
			first := strings.Count(string(source), "\n") - strings.Count(section, "\n") + 1
			body, _, _ := strings.Cut(section, "\n\t\t},\n")
			for i, line := range strings.Split(body, "\n") {
				if _, mark, ok := strings.Cut(line, " // "); ok {
					want = strings.ReplaceAll(want, mark, fmt.Sprintf("lab_test.go:%d", first+i))
				}
			}
			start := time.Now()
			cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-victim="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("the victim ended with %v, want a failure:\n%s", err, out)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("the verdict took %v", took)
			}
			got := regexp.MustCompile(`(services_test\.go):\d+`).ReplaceAllString(verdict(string(out)), "$1")
			got = regexp.MustCompile(`lines in \d+m?s`).ReplaceAllString(got, "lines in 0s") // real time
			if got != strings.TrimSpace(want) {
				t.Errorf("the verdict is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// verdict returns the message of a failed test: what is indented, without the
// places in the test that Go puts before it.
func verdict(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			text = regexp.MustCompile(`^\w+\.go:\d+: `).ReplaceAllString(text, "")
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	return strings.Join(lines, "\n")
}

// A test in which messages arrive is not stuck, however long it takes.
func TestASlowTestHasTime(t *testing.T) {
	const limit = time.Second
	var over atomic.Bool
	time.AfterFunc(limit+limit/2, func() { over.Store(true) }) // outside the bubble: in real time
	Run(t, func(l *Lab) {
		client, _ := l.Connect(service{chat: echo})
		stream, err := client.Chat(l.Context())
		for err == nil && !over.Load() {
			stream.Send(&feedv1.ChatMessage{})
			_, err = stream.Recv()
		}
		if stream.CloseSend(); err != nil {
			l.Errorf("the stream ended with %v", err)
		}
		stream.Recv()
	}, Lasts(24*time.Hour), RealLimit(limit))
}

// Who waits for a mutex is told apart from who waits for a channel.
func TestLockWantedIsForMutexesAlone(t *testing.T) {
	Run(t, func(l *Lab) {
		var mu sync.RWMutex
		var others sync.WaitGroup
		release := make(chan bool)
		others.Go(func() { <-release })
		l.Settle()
		if l.LockWanted() {
			l.Errorf("a goroutine that waits for a channel is said to want a lock:\n%s", l.Stuck())
		}
		for name, lock := range map[string]sync.Locker{"Lock": &mu, "RLock": mu.RLocker()} {
			mu.Lock()
			others.Go(func() {
				lock.Lock()
				defer lock.Unlock()
			})
			l.Settle()
			if stuck := l.Stuck(); !l.LockWanted() || !strings.Contains(stuck, "blocked in Lock at lab_test.go") {
				l.Errorf("one waits in %s; LockWanted is %t, and stuck is\n%s", name, l.LockWanted(), stuck)
			}
			mu.Unlock()
			l.Settle()
		}
		close(release)
		others.Wait()
	})
}

// Two that settle at once do not wait for each other.
func TestSettleDoesNotWaitForSettle(t *testing.T) {
	Run(t, func(l *Lab) {
		var both sync.WaitGroup
		for range 2 {
			both.Go(l.Settle)
		}
		both.Wait()
	})
}

// A goroutine takes a while to get where it waits: for a mutex, which keeps
// virtual time from moving, or for a channel. It allocates on its way, and so
// works for the garbage collector now and then.
func TestSettleWaitsUntilAllOthersWait(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	for name, wait := range map[string]func(mu *sync.Mutex, release chan bool){
		"mutex":   func(mu *sync.Mutex, _ chan bool) { mu.Lock(); defer mu.Unlock() },
		"channel": func(_ *sync.Mutex, release chan bool) { <-release },
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(l *Lab) {
				for range 100 {
					var mu sync.Mutex
					var steps atomic.Int32
					var other sync.WaitGroup
					release := make(chan bool)
					mu.Lock()
					other.Go(func() {
						for range 10 {
							steps.Add(1)
							runtime.KeepAlive(make([]*int, 10_000))
							runtime.Gosched()
						}
						wait(&mu, release)
						steps.Add(1)
					})
					l.Settle()
					if got := steps.Load(); got != 10 {
						l.Errorf("Settle returned after step %d of the other goroutine, want it when that waits, after 10", got)
					}
					mu.Unlock()
					close(release)
					other.Wait()
				}
			}, RealLimit(time.Minute)) // a collection at each step takes a while, and nothing arrives
		})
	}
}
