// Right: a channel for each topic, and reflect.Select over them.
package main

import (
	"context"
	"errors"
	"io"
	"reflect"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		once  sync.Once
		first error
	)
	end := func(err error) { once.Do(func() { first = err; cancel() }) }
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	cases := make([]reflect.SelectCase, len(topics))
	for i, topic := range topics {
		items := make(chan *feedv1.Event)
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(items)}
		streams.Go(func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); errors.Is(err, io.EOF) {
					close(items)
					return
				}
				if err == nil {
					select {
					case items <- ev:
					case <-ctx.Done():
						err = ctx.Err()
					}
				}
			}
			end(err)
		})
	}
	done := reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())}
	for open := len(topics); open > 0; {
		i, value, ok := reflect.Select(append(cases, done))
		if i == len(topics) {
			end(ctx.Err())
			return first
		}
		if !ok {
			cases[i].Chan = reflect.ValueOf((chan *feedv1.Event)(nil))
			open--
		} else if err := handle(topics[i], value.Interface().(*feedv1.Event)); err != nil {
			end(err)
			return first
		}
	}
	return nil
}
