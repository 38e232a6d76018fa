package lab

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Context returns a context that lives as long as the test, and that knows the
// contexts made from it: the leak check names the line that made one which was
// never cancelled.
func (l *Lab) Context() context.Context { return l.ctx }

// labContext has a Done channel of its own and an AfterFunc method, so package
// context registers each child here, and removes it when the child is
// cancelled (context.go, (*cancelCtx).propagateCancel and removeChild).
type labContext struct {
	context.Context
	done chan struct{}

	mu       sync.Mutex
	children map[*child]bool
}

// child is a context, or a context.AfterFunc, that has not been cancelled or
// stopped.
type child struct {
	cancel func()
	left   string // what to say if it is left; "" for those that gRPC makes for itself
}

func (c *labContext) Done() <-chan struct{} { return c.done }

func (c *labContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// AfterFunc is what package context calls for each child.
func (c *labContext) AfterFunc(cancel func()) (stop func() bool) {
	made := &child{cancel: cancel}
	left := "the context made at %s was never cancelled"
	stack := here()
	for _, f := range stack.frames {
		if strings.HasPrefix(f.fn, "google.golang.org/grpc") {
			break
		}
		if f.fn == "context.AfterFunc" {
			left = "the context.AfterFunc of %s was never stopped"
		}
		if f.isUser() {
			at, _, _ := stack.user()
			made.left = fmt.Sprintf(left, at.place())
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children[made] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		was := c.children[made]
		delete(c.children, made)
		return was
	}
}

// forgotten says which children are left, and the lines that made them.
func (c *labContext) forgotten() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for made := range c.children {
		if made.left != "" {
			lines = append(lines, made.left)
		}
	}
	return tally(lines)
}

// end cancels what is left.
func (c *labContext) end() {
	close(c.done)
	c.mu.Lock()
	left := c.children
	c.children = map[*child]bool{}
	c.mu.Unlock()
	for made := range left {
		go made.cancel()
	}
}
