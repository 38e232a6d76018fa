package lab

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const labPkg = "example.com/mygrpc/internal/lab"

// A goroutine is one entry of a goroutine dump.
type goroutine struct {
	id     string
	state  string  // "chan send", "running", "sync.Mutex.Lock", …
	bubble string  // "synctest bubble 7", "" outside of bubbles
	elided bool    // more than 100 frames, of which a dump leaves out some
	frames []frame // innermost first
	parent frame   // the go statement that started it
}

// frame is one call on a stack.
type frame struct {
	fn   string // "main.(*server).Watch"
	file string
	line int
}

func (f frame) place() string { return fmt.Sprintf("%s:%d", filepath.Base(f.file), f.line) }

// name is the last element of the function's name: "Recv", "Watch".
func (f frame) name() string {
	fn := strings.ReplaceAll(f.fn, "[...]", "")
	fn = regexp.MustCompile(`(\.func\d+|\.\d+|-fm|-range\d+)+$`).ReplaceAllString(fn, "") // a literal goes by the function around it
	return fn[strings.LastIndex(fn, ".")+1:]
}

// pkg is the import path of the function.
func (f frame) pkg() string {
	slash := strings.LastIndex(f.fn, "/") + 1
	pkg, _, _ := strings.Cut(f.fn[slash:], ".")
	return f.fn[:slash] + pkg
}

// isTest reports whether the frame is neither the learner's nor the chapter's.
func (f frame) isTest() bool { return strings.HasSuffix(f.file, "_test.go") }

// isUser reports whether the frame belongs to the program under test or to
// its test, and not to Go, to gRPC, to generated code or to the lab itself.
func (f frame) isUser() bool {
	switch pkg := f.pkg(); {
	case pkg == "main":
		return filepath.Base(f.file) != "_testmain.go"
	case pkg == labPkg:
		return f.isTest()
	default:
		return strings.HasPrefix(pkg, "example.com/mygrpc/") && !strings.HasPrefix(pkg, "example.com/mygrpc/gen/")
	}
}

// here returns the stack of its caller, without what only a dump knows: the
// goroutine's number, its state, and who started it. A dump costs more.
func here() goroutine {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var g goroutine
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		g.frames = append(g.frames, frame{fn: f.Function, file: f.File, line: f.Line})
	}
	return g
}

// current returns the goroutine that calls it.
func current() goroutine {
	buf := make([]byte, 64<<10)
	return parse(buf[:runtime.Stack(buf, false)])[0]
}

// dump returns all goroutines of the process.
func dump() []goroutine {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			return parse(buf[:n])
		}
		buf = make([]byte, 2*len(buf))
	}
}

// parse reads what runtime.Stack writes.
func parse(text []byte) []goroutine {
	var all []goroutine
	for block := range bytes.SplitSeq(text, []byte("\n\n")) {
		lines := strings.Split(strings.TrimSpace(string(block)), "\n")
		header, ok := strings.CutPrefix(lines[0], "goroutine ")
		if !ok {
			continue
		}
		var g goroutine
		var state string
		g.id, state, _ = strings.Cut(strings.TrimSuffix(header, "]:"), " [")
		for i, part := range strings.Split(state, ", ") {
			switch {
			case i == 0:
				g.state = strings.TrimSuffix(part, " (durable)") // lets virtual time move
			case strings.HasPrefix(part, "synctest bubble"):
				g.bubble = part
			}
		}
		lines = slices.DeleteFunc(lines, func(line string) bool {
			elided := strings.HasPrefix(line, "...")
			g.elided = g.elided || elided
			return elided
		})
		for i := 1; i+1 < len(lines); i += 2 {
			fn, created := strings.CutPrefix(lines[i], "created by ")
			fn, _, _ = strings.Cut(fn, " in goroutine ")
			if paren := strings.LastIndex(fn, "("); !created && paren > 0 {
				fn = fn[:paren]
			}
			at, _, _ := strings.Cut(strings.TrimSpace(lines[i+1]), " ")
			colon := strings.LastIndex(at, ":")
			f := frame{fn: fn, file: at[:max(colon, 0)]}
			f.line, _ = strconv.Atoi(at[colon+1:])
			if created {
				g.parent = f
			} else {
				g.frames = append(g.frames, f)
			}
		}
		all = append(all, g)
	}
	return all
}

// busy reports whether the goroutine goes on by itself.
func (g goroutine) busy() bool {
	return slices.Contains([]string{"running", "runnable", "preempted", "copystack", "syscall"}, g.state)
}

// settles reports whether the goroutine is in Settle: two that are would wait
// for each other.
func (g goroutine) settles() bool {
	return slices.ContainsFunc(g.frames, func(f frame) bool { return f.fn == labPkg+".(*Lab).Settle" })
}

// collects reports whether the goroutine may be at work for the garbage
// collector. The runtime takes it out of its bubble for so long (gcStart in
// runtime/mgc.go, gcAssistAlloc in mgcmark.go). A system call it does not make.
func (g goroutine) collects() bool {
	return g.bubble == "" && g.state != "syscall" && (g.busy() || slices.Contains([]string{
		"semacquire", "garbage collection", "stopping the world", "GC assist marking", "GC assist wait",
		"GC mark termination"}, g.state))
}

// user returns the innermost frame of the program under test, or of its test
// where there is no other, and the frame that it called.
func (g goroutine) user() (at, callee frame, ok bool) {
	found := -1
	for i, f := range g.frames {
		if !f.isUser() {
			continue
		}
		if found < 0 || g.frames[found].isTest() && !f.isTest() {
			found = i
		}
	}
	if found < 0 {
		return frame{}, frame{}, false
	}
	if found > 0 {
		callee = g.frames[found-1]
	}
	return g.frames[found], callee, true
}

// doing says what the goroutine does and where: "blocked in Recv at
// answer.go:23".
func (g goroutine) doing() string {
	at, callee, ok := g.user()
	where := " at " + at.place()
	if !ok { // a go statement called a function of somebody else
		callee, where = g.frames[len(g.frames)-1], ""
	}
	what := fmt.Sprintf("blocked (%s)", g.state)
	switch {
	case g.state == "running", g.state == "runnable":
		what = "running without a pause"
	case callee.fn == "time.Sleep":
		what = "sleeping"
	case callee.fn != "":
		what = "blocked in " + callee.name()
	case strings.HasPrefix(g.state, "chan send"):
		what = "blocked sending to a channel"
	case strings.HasPrefix(g.state, "chan receive"):
		what = "blocked receiving from a channel"
	case strings.HasPrefix(g.state, "select"):
		what = "blocked in a select"
	}
	return what + where
}

// inHandler returns the name of the method whose handler runs on g.
func (g goroutine) inHandler() (string, bool) {
	for i := len(g.frames) - 1; i >= 0; i-- {
		if name, ok := strings.CutPrefix(g.frames[i].fn, "example.com/mygrpc/gen/feed/v1._FeedService_"); ok {
			method, _, _ := strings.Cut(name, "_Handler")
			return method, true
		}
	}
	return "", false
}
