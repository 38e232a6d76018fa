package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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
					var m map[string]int
					m["x"]++ // VICTIM
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
				for l.virtual { // VICTIM
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
the server's Chat handler still runs: blocked receiving from a channel at services_test.go:41`,
		"three abandoned streams": `
3 of 3 RPCs never ended (Chat, opened at VICTIM (3 times))
the server's Chat handler still runs: blocked receiving from a channel at services_test.go:41 (3 times)`,
		"abandoned stream to a handler in Send": `
1 of 1 RPCs never ended (Chat, opened at VICTIM)
the server's Chat handler still runs: blocked in Send at HANDLER`,
		"deaf handler":                          `the server's Chat handler still runs: blocked receiving from a channel at HANDLER`,
		"goroutine left":                        `a goroutine that was started at STARTED still runs: blocked sending to a channel at VICTIM`,
		"connection left":                       `after everything was closed: a grpc.ClientConn was not closed (3 times)`,
		"answer that waits for ever":            "answer has not returned after 1m0s:\nblocked in Recv at VICTIM\nblocked receiving from a channel at services_test.go:41",
		"answer that panics":                    `answer panicked: assignment to entry in nil map (VICTIM)`,
		"handler that panics":                   `the Chat handler panicked: oh (HANDLER)`,
		"body that panics":                      `panic: oh (VICTIM)`,
		"body that waits for ever":              "the test has not ended after 10m0s:\nblocked in Recv at VICTIM\nblocked receiving from a channel at services_test.go:41\nsleeping at HANDLER",
		"spin":                                  "the test has not ended after 500ms of real time:\nrunning without a pause at VICTIM",
		"spin in a handler":                     "the test has not ended after 500ms of real time:\nrunning without a pause at HANDLER",
		"mutex deadlock":                        "the test has not ended after 500ms of real time:\nblocked in Lock at VICTIM",
		"skip":                                  `panic: lab: tests are not skipped (VICTIM)`,
		"failing answer that also leaks":        `the first failure`,
		"failing answer that leaves goroutines": "the first failure\nthe test goes on",
	}
	for name := range victims() {
		if verdicts[name] == "" {
			t.Errorf("no verdict is expected of victim %q", name)
		}
	}
	for name, want := range verdicts {
		t.Run(name, func(t *testing.T) {
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
			if got := verdict(string(out)); got != strings.TrimSpace(want) {
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
