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
	type item struct {
		ev  *feedv1.Event
		err error
	}
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	cases := make([]reflect.SelectCase, len(topics))
	for i, topic := range topics {
		items := make(chan item)
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(items)}
		streams.Go(func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for {
				var ev *feedv1.Event
				if err == nil {
					ev, err = stream.Recv()
				}
				select {
				case items <- item{ev, err}:
				case <-ctx.Done():
					if err == nil {
						return
					}
					select { // the loop may still be there to hear of the end
					case items <- item{ev, err}:
					default:
					}
					return
				}
				if err != nil {
					return
				}
			}
		})
	}
	done := reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())}
	for open := len(topics); open > 0; {
		i, value, _ := reflect.Select(append(cases, done))
		if i == len(topics) {
			return ctx.Err()
		}
		it := value.Interface().(item)
		switch {
		case errors.Is(it.err, io.EOF):
			cases[i].Chan = reflect.ValueOf((chan item)(nil))
			open--
		case it.err != nil:
			return it.err
		default:
			if err := handle(topics[i], it.ev); err != nil {
				return err
			}
		}
	}
	return nil
}
