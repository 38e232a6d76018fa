package workbook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// A Check is one request to "go test -json" for some folders of the module, or
// to a program that says the same of one folder.
type Check struct {
	Root  string   // the folder of go.mod, absolute
	Dirs  []string // below Root, with slashes: "exercises/03-client-streaming"
	Flags []string // more flags of go test, such as "-race", "-count=3", "-cpu=1,2,4"

	// Program and its arguments print what "go test -json" prints for the one
	// folder of Dirs, in which they run. Empty means that go is asked.
	Program []string
	Env     []string // more of Program's environment: "NAME=value"
	// Answer is the file from which Program was built in the place of the
	// folder's answer.go.
	Answer string

	// Limit is the real time that may pass between two beginnings or ends of
	// tests in a folder, from the moment that its test binary starts. Zero
	// means 20 s: the lab itself ends a test after 10 s at the latest.
	Limit time.Duration

	// Flood is the number of bytes that may be printed between two beginnings
	// or ends of tests in a folder. Zero means 1 MiB.
	Flood int

	// Progress receives what the go command says about itself, such as which
	// modules it downloads. May be nil.
	Progress io.Writer
}

// Run runs the check and returns one Result for each folder, in the order of
// Dirs. A folder whose check fails is no error. An error means that there is
// nothing to judge: go is not on the PATH, it said something about no folder
// in particular, or ctx ended.
//
// One go command serves all folders. Where one of them floods its output or
// hangs, that command is ended, and the folders without a result get another.
func (c Check) Run(ctx context.Context) ([]Result, error) {
	c.Limit = cmp.Or(c.Limit, 20*time.Second)
	c.Flood = cmp.Or(c.Flood, 1<<20)
	done := map[string]Result{}
	for len(done) < len(c.Dirs) {
		var left []string
		for _, dir := range c.Dirs {
			if _, ok := done[dir]; !ok {
				left = append(left, dir)
			}
		}
		results, err := c.once(ctx, left)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			done[r.Dir] = r
		}
	}
	var results []Result
	for _, dir := range c.Dirs {
		results = append(results, done[dir])
	}
	return results, nil
}

// once runs one go command and returns the results that it came to, at least
// one unless there is an error.
func (c Check) once(parent context.Context, dirs []string) ([]Result, error) {
	ctx, stop := context.WithCancel(parent)
	defer stop()
	args, dir := append([]string{"go", "test", "-json"}, c.Flags...), c.Root
	// A go command that is interrupted while it builds leaves its files behind.
	temp, err := os.MkdirTemp(os.Getenv("GOTMPDIR"), "workbook-")
	if err != nil {
		return nil, fmt.Errorf("run go test: %w", err)
	}
	defer os.RemoveAll(temp)
	s := &stream{limit: c.Limit, flood: c.Flood, stop: stop, builds: map[string][]string{}}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
		s.add(dir)
	}
	if len(c.Program) > 0 {
		args, dir = c.Program, filepath.Join(c.Root, filepath.FromSlash(dirs[0]))
	}
	said := &tail{next: c.Progress}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOTRACEBACK=single", "GOWORK=off", "GOTMPDIR="+temp)
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Stdout, cmd.Stderr = s, said
	cmd.WaitDelay = 2 * time.Second
	sweep := ownGroup(cmd)
	err = cmd.Run()
	s.close(ctx.Err() == nil)
	if ctx.Err() != nil && cmd.Process != nil {
		sweep()
	}
	switch {
	case parent.Err() != nil:
		return nil, context.Cause(parent)
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("the go command is not on the PATH: install Go from https://go.dev/dl")
	}
	var results []Result
	for _, p := range s.packages {
		if !p.done && !p.flooded && !p.late.Load() {
			continue
		}
		tests, err := declared(c.Root, p.dir)
		if err != nil {
			return nil, err
		}
		r := p.result(c.Root, tests)
		if r.Funcs, err = funcs(cmp.Or(c.Answer, c.answer(p.dir))); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	// A go command that ended by itself has heard of every folder, or it has
	// said why not.
	if len(results) == 0 || len(results) < len(dirs) && ctx.Err() == nil {
		for _, text := range s.builds {
			said.text = append(said.text, strings.Join(text, "\n")+"\n"...)
		}
		return nil, fmt.Errorf("go test said:\n%s", cmp.Or(strings.TrimSpace(string(said.text)), fmt.Sprint(err)))
	}
	return results, nil
}

// answer returns the answer.go of the folder.
func (c Check) answer(dir string) string {
	return filepath.Join(c.Root, filepath.FromSlash(dir), "answer.go")
}

// tail keeps the last 16 KiB of what is written to it and passes all on.
type tail struct {
	text []byte
	next io.Writer
}

func (t *tail) Write(data []byte) (int, error) {
	t.text = append(t.text, data...)
	t.text = t.text[max(0, len(t.text)-16<<10):]
	if t.next != nil {
		return t.next.Write(data)
	}
	return len(data), nil
}

// An event is a line of "go test -json"; see "go doc test2json" and "go help
// buildjson".
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
}

// A stream is the writer that the go command's standard output goes to.
type stream struct {
	limit    time.Duration
	flood    int
	stop     func() // ends the go command
	stopped  atomic.Bool
	packages []*pkg
	builds   map[string][]string // lines of the compiler and of vet, by ImportPath
	partial  []byte              // a line that has not ended yet
}

// A pkg is what was heard of one folder.
type pkg struct {
	stream    *stream
	dir, path string
	tests     []*Test  // in the order in which they began
	outside   *Outcome // what was printed outside of every test
	last      *Outcome // where the latest output went: a test's run, or outside
	lastName  string   // the test of last, or empty
	ended     Status   // how the test ended that was the last to begin or end; Unfinished if it began
	endedName string

	finished    bool // the test binary came to its own end: it said PASS or FAIL
	done        bool // go has given its verdict, which is in passed and failedBuild
	passed      bool
	failedBuild string
	held        *event // the end of a test, as long as nothing follows
	printed     int    // bytes since a test began or ended
	flooded     bool
	late        atomic.Bool // set by timer
	timer       *time.Timer
}

func (s *stream) add(dir string) {
	outside := &Outcome{}
	s.packages = append(s.packages, &pkg{stream: s, dir: dir, path: Module + "/" + dir, outside: outside, last: outside})
}

// Write takes what the go command wrote. It never fails.
func (s *stream) Write(data []byte) (int, error) {
	s.partial = append(s.partial, data...)
	for {
		line, rest, found := bytes.Cut(s.partial, []byte("\n"))
		if !found {
			return len(data), nil
		}
		s.partial = rest
		var e event
		// After stop, what comes tells of the interrupt and of nothing else.
		if !s.stopped.Load() && json.Unmarshal(line, &e) == nil {
			s.event(e)
		}
	}
}

func (s *stream) event(e event) {
	if e.Action == "build-output" {
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], strings.TrimRight(e.Output, "\r\n"))
		return
	}
	for _, p := range s.packages {
		if p.path == e.Package {
			p.event(e)
		}
	}
}

// end ends the go command.
func (s *stream) end() {
	s.stopped.Store(true)
	s.stop()
}

// close is called when the command has ended, by itself or not.
func (s *stream) close(byItself bool) {
	for _, p := range s.packages {
		p.settle(byItself)
		if p.timer != nil {
			p.timer.Stop()
		}
	}
}

func (p *pkg) event(e event) {
	p.settle(false)
	switch e.Action {
	case "output":
		p.output(e)
		return
	case "start":
		p.timer = time.AfterFunc(p.stream.limit, func() {
			p.late.Store(true)
			p.stream.end()
		})
		return
	case "run":
		p.finished = false
		p.begin(e.Test)
	case "pass", "skip", "fail":
		p.held = &e
		if e.Test == "" {
			p.settle(true)
			return
		}
	}
	p.printed = 0
	p.timer.Reset(p.stream.limit)
}

// settle takes the end that is held for the end of a test, or for the verdict
// on the package if it is the last that was heard: when a process ends in a
// test, test2json writes the package's verdict as that of the test.
func (p *pkg) settle(last bool) {
	if p.held == nil {
		return
	}
	e := p.held
	p.held = nil
	if last {
		p.done, p.passed, p.failedBuild = true, e.Action != "fail", e.FailedBuild
		p.timer.Stop()
		return
	}
	status := Passed
	if e.Action == "fail" {
		status = Failed
	}
	p.end(e.Test, status)
}

func (p *pkg) test(name string) *Test {
	for _, t := range p.tests {
		if t.Name == name {
			return t
		}
	}
	t := &Test{Name: name}
	p.tests = append(p.tests, t)
	return t
}

func (p *pkg) begin(name string) {
	t := p.test(name)
	t.Runs = append(t.Runs, &Outcome{Status: Unfinished})
	p.ended, p.endedName = Unfinished, name
}

// end notes how a test's latest run ended. A second report on the same run
// counts only if it is worse: the first may have been printed by the code
// under test.
func (p *pkg) end(name string, status Status) {
	t := p.test(name)
	if len(t.Runs) == 0 {
		p.begin(name)
	}
	run := t.Runs[len(t.Runs)-1]
	if run.Status != Failed {
		run.Status = status
	}
	if run.Status == Passed {
		run.raw = nil
	}
	p.ended, p.endedName = run.Status, name
}

func (p *pkg) output(e event) {
	// The go command's own line about the package comes last. The code under
	// test can print such a line too, but then something follows.
	if strings.HasPrefix(e.Output, "FAIL\t"+p.path) || strings.HasPrefix(e.Output, "ok  \t"+p.path) {
		return
	}
	if e.Test == "" && (e.Output == "PASS\n" || e.Output == "FAIL\n") {
		p.finished = true
		return
	}
	p.last, p.lastName = p.outside, e.Test
	if e.Test != "" {
		t := p.test(e.Test)
		if len(t.Runs) == 0 {
			p.begin(e.Test)
		}
		p.last = t.Runs[len(t.Runs)-1]
	}
	p.last.raw = append(p.last.raw, e.Output...)
	if p.printed += len(e.Output); p.printed > p.stream.flood {
		p.flooded = true
		p.stream.end()
	}
}
