package main

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// A schedule is what happens to a client, its server and the network between
// them, by seed.
type schedule struct {
	steps []step
	slow  [events + 1]time.Duration // to handle each event
}

type step struct {
	at   time.Duration
	what string
	n    time.Duration // how long it lasts, or how many events a trim leaves
}

const (
	events = 16
	saving = 40 * time.Millisecond // from the end of handle to the saved cursor
)

func schedules(seed uint64) (s schedule) {
	rng := rand.New(rand.NewPCG(seed, 30))
	between := func(low, high int) time.Duration { return time.Duration(low+rng.IntN(high-low)) * ms }
	at := time.Duration(0)
	for n := 2; n <= events; n++ {
		s.slow[n] = between(0, 3)
		if rng.IntN(2) == 0 {
			s.slow[n] = between(3, 200)
		}
		if rng.IntN(3) == 0 { // the others come in a burst
			at += between(1, 800)
		}
		at += ms
		s.steps = append(s.steps, step{at + 300*time.Microsecond, "publish", 0})
	}
	end := at
	for at = between(1, 300); at < end; at += between(1, 500) {
		f := step{at, "", between(1, 600)}
		switch rng.IntN(10) {
		case 0, 1:
			f.what = "cut"
		case 2:
			f.what = "blackhole"
		case 3:
			f.what, f.n = "blackhole", between(14_000, 20_000) // keepalive ends the stream
		case 4, 5:
			f.what = "restart"
		case 6:
			f.what, f.n = "trim", time.Duration(rng.IntN(3))
		default:
			f.what, f.n = "kill", between(1, 300)
		}
		s.steps = append(s.steps, f)
		if f.what != "trim" {
			at += f.n
			s.steps = append(s.steps, step{at, "end of " + f.what, 0})
		}
	}
	slices.SortFunc(s.steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return s
}

func (s schedule) String() string {
	var text strings.Builder
	for _, f := range s.steps {
		fmt.Fprintf(&text, "%9v %s", f.at, f.what)
		if f.what == "trim" {
			fmt.Fprintf(&text, " to %d", f.n)
		} else if f.n > 0 {
			fmt.Fprintf(&text, " for %v", f.n)
		}
		text.WriteString("\n")
	}
	fmt.Fprintf(&text, "handle takes %v", s.slow[2:])
	return text.String()
}

// play plays the schedule and returns what is wrong with the entries that the
// client has when all has been healed for half a minute.
func (s schedule) play(l *lab.Lab, w way) string {
	f := newFeed(w.watch, 20*ms)
	link := l.NewLink()
	srv := link.Serve(f, patient)
	conn := link.Dial(deterministic()...)
	client := feedv1.NewFeedServiceClient(conn)
	f.publish("")
	disk := &ledger{saved: 1, entries: []uint64{1}, snapshot: f.newest}
	begin := func() *process {
		p := &process{disk: disk, way: w}
		p.hook = func(ev *feedv1.Event) error { pause(p.ctx, s.slow[ev.GetCursor()]); return nil }
		p.unsave = func(uint64) error { pause(p.ctx, saving); return nil }
		p.start(l.Context(), client)
		return p
	}
	start, p := time.Now(), begin()
	for _, f1 := range s.steps {
		time.Sleep(time.Until(start.Add(f1.at)))
		switch f1.what {
		case "publish":
			f.publish("")
		case "trim":
			f.trim(int(f1.n))
		case "cut":
			link.Cut()
		case "blackhole":
			link.Blackhole()
		case "end of cut", "end of blackhole":
			link.Heal()
		case "restart":
			srv.Stop()
		case "end of restart":
			srv = link.Serve(f, patient)
		case "kill":
			p.kill()
		case "end of kill":
			p = begin()
		}
	}
	for late := 0; late < 300 && slices.Max(p.entries()) < events; late++ {
		time.Sleep(100 * ms)
	}
	time.Sleep(time.Second)
	err := p.kill()
	conn.Close()
	srv.Stop()
	if wrong := disk.wrong(); wrong != "" {
		return fmt.Sprintf("%s: %v (%v)", wrong, disk.entries, err)
	}
	return ""
}

// wrong says what is wrong with the entries.
func (l *ledger) wrong() string {
	if !slices.IsSorted(l.entries) {
		return "not in order"
	}
	seen, double, missing := map[uint64]int{}, 0, 0
	for _, n := range l.entries {
		if seen[n]++; seen[n] == 2 {
			double++
		}
	}
	for n := range uint64(events) {
		if seen[n+1] == 0 {
			missing++
		}
	}
	if double+missing == 0 {
		return ""
	}
	return fmt.Sprintf("%d missing, %d double", missing, double)
}

var replay = flag.Uint64("seed", 0, "play this schedule alone")

// 300 schedules. The seed in the message plays the same one again:
// go test ./chapters/30-resume -run NoSchedule -seed 17
func TestNoScheduleMakesAGapADoubleOrALoss(t *testing.T) {
	what := map[string]int{}
	for first := uint64(1); first <= 300; first += 50 { // each with its own limit in real time
		lab.Run(t, func(l *lab.Lab) {
			for seed := first; seed < first+50; seed++ {
				if *replay != 0 {
					seed = *replay
				}
				s := schedules(seed)
				if wrong := s.play(l, right); wrong != "" {
					l.Fatalf("seed %d: %s\n%v", seed, wrong, s)
				}
				for _, f := range s.steps {
					what[f.what]++
				}
				if *replay != 0 {
					return
				}
			}
		}, lab.Lasts(1000*time.Hour))
	}
	t.Logf("no gap, no double, no loss: %v", what)
}

func TestEachBrokenWayIsFoundBySomeSeed(t *testing.T) {
	for _, w := range []way{savingFirst, fromReceived, addingTwice, replayFirst, fromTheFirst} {
		lab.Run(t, func(l *lab.Lab) {
			const n = 50
			found, first := 0, ""
			for seed := uint64(1); seed <= n; seed++ {
				if wrong := schedules(seed).play(l, w); wrong != "" {
					found++
					first = cmp.Or(first, fmt.Sprintf("seed %d: %s", seed, wrong))
				}
			}
			if found == 0 {
				l.Errorf("%s: none of %d seeds finds it", w.name, n)
			}
			l.Logf("%s: %d of %d seeds find it; %s", w.name, found, n, first)
		}, lab.Lasts(1000*time.Hour))
	}
}

// No two steps are at one instant, and a fault has ended when the next begins:
// else the order, or what ends, would be a matter of chance.
func TestASeedIsASchedule(t *testing.T) {
	for seed := range uint64(300) {
		at, open := time.Duration(0), ""
		for _, f := range schedules(seed + 1).steps {
			ends, end := strings.CutPrefix(f.what, "end of ")
			switch {
			case f.at <= at, end && ends != open, !end && f.what != "publish" && open != "":
				t.Fatalf("seed %d: %q at %v follows %v, and %q has not ended", seed+1, f.what, f.at, at, open)
			case end:
				open = ""
			case f.what != "publish" && f.what != "trim":
				open = f.what
			}
			at = f.at
		}
	}
	one, again, other := schedules(17).String(), schedules(17).String(), schedules(18).String()
	if one != again || one == other {
		t.Errorf("seed 17 made\n%v\nand then\n%v\nand seed 18\n%v", one, again, other)
	}
	t.Logf("seed 17:\n%v", one)
}
