package workbook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Verdict says how the check of one folder ended.
type Verdict string

const (
	Pass           Verdict = "pass"
	Fail           Verdict = "fail"             // a test failed and said why
	DoesNotCompile Verdict = "does not compile" // the folder's own code
	DoesNotBuild   Verdict = "does not build"   // something that it imports, or the go command itself
	Vet            Verdict = "vet"              // go vet, which "go test" runs first
	Panicked       Verdict = "panicked"         // a panic or a fatal error ended the process
	Exited         Verdict = "exited"           // os.Exit, log.Fatal or a signal ended the process
	Flooded        Verdict = "flooded"          // one test printed more than Check.Flood bytes
	TimedOut       Verdict = "timed out"        // no test began or ended for Check.Limit
)

// A Result is the outcome of checking one folder.
type Result struct {
	Dir     string // below the module root, with slashes
	Verdict Verdict

	// Tests holds the top-level tests in the order of the source, each
	// followed by its subtests. A test that was not reached has no Runs.
	// Tests that the folder's source does not declare are left out: code
	// under test can print lines that look like results.
	Tests []*Test

	// Running names the test that the process died in. It is empty when the
	// process died outside of every test, and when it did not die.
	Running string

	// Text holds what the compiler or go vet said, the panic's text, or, for
	// Exited, Flooded, TimedOut and a Fail without a failed test, what the
	// process printed at last. Paths are relative to the module root.
	Text []string

	// Line is the line of answer.go that the panic or the exit came from, or 0.
	Line int

	// Trace is what the runtime printed below the text of a panic.
	Trace []string

	// Funcs are the functions that answer.go declares.
	Funcs []Func

	// Limit is the bound that a Flooded or a TimedOut check went beyond, such
	// as "1 MiB" or "20 s".
	Limit string
}

// A Func is a function or method of answer.go and the line that declares it.
type Func struct {
	Name string
	Line int
}

// A Test is one test, with one Outcome for each time that it ran (-count and
// -cpu repeat it).
type Test struct {
	Name string // as "go test" writes it, "TestX/the_server_fails"
	Runs []*Outcome
}

// A Status says how one run of a test ended.
type Status string

const (
	Unfinished Status = "unfinished" // the process ended first
	Passed     Status = "passed"
	Failed     Status = "failed"
)

// An Outcome is one run of a test. Of a run that passed, no output is kept.
type Outcome struct {
	Status  Status
	Message []string // what the test reported, without "main_test.go:34:" in front
	Printed []string // all else that was written to standard output or error

	raw []byte
}

// Passed reports whether the test ran and passed each time.
func (t *Test) Passed() bool { return len(t.Runs) > 0 && t.Failure() == nil }

// Failure returns the first run that did not pass, or nil.
func (t *Test) Failure() *Outcome {
	for _, run := range t.Runs {
		if run.Status != Passed {
			return run
		}
	}
	return nil
}

// Test returns the test of that name, or nil.
func (r Result) Test(name string) *Test {
	for _, t := range r.Tests {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// declared returns the names of the top-level tests in the folder's test
// files, in the order of the source.
func declared(root, dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	var tests []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("list tests: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			name, found := strings.CutPrefix(line, "func Test")
			name, _, call := strings.Cut(name, "(")
			if found && call && name != "Main" {
				tests = append(tests, "Test"+name)
			}
		}
	}
	return tests, nil
}

// funcs returns the functions that the file declares. A file that is missing
// has none.
func funcs(file string) ([]Func, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list functions: %w", err)
	}
	var all []Func
	for i, line := range lines(text) {
		decl, ok := strings.CutPrefix(line, "func ")
		if strings.HasPrefix(decl, "(") { // the receiver of a method
			_, decl, _ = strings.Cut(decl, ") ")
		}
		if name := decl[:span(decl, inName)]; ok && name != "" {
			all = append(all, Func{name, i + 1})
		}
	}
	return all, nil
}

func inName(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// result turns what was heard of a package into a Result. It is called once,
// when the go command has ended.
func (p *pkg) result(root string, declared []string) Result {
	r := Result{Dir: p.dir}
	crashText, trace, crashed := crash(p.last.raw)
	for _, name := range declared {
		found := false
		for _, t := range p.tests {
			found = found || t.Name == name
			if t.Name == name || strings.HasPrefix(t.Name, name+"/") {
				r.Tests = append(r.Tests, t)
			}
		}
		if !found {
			r.Tests = append(r.Tests, &Test{Name: name})
		}
	}
	p.closeAncestors()
	died := p.failedBuild == "" && !p.finished
	unfinished := p.running()
	switch {
	case p.failedBuild != "":
		r.Verdict, r.Text = p.buildVerdict()
	case died && crashed:
		r.Verdict, r.Running = Panicked, p.lastName
		r.Text, r.Line, r.Trace = []string{crashText}, firstPlace(trace), trace
		if strings.Contains(crashText, "unexpected call to os.Exit(0) during test") {
			r.Verdict, r.Text = Exited, nil
		}
	case died && p.flooded:
		r.Verdict, r.Running, r.Limit = Flooded, unfinished, size(p.stream.flood)
	case p.late.Load() && (died || !p.done): // it may have said PASS, and not have ended
		r.Verdict, r.Running, r.Limit = TimedOut, unfinished, seconds(p.stream.limit)
	case p.passed && p.finished && !slices.ContainsFunc(r.Tests, func(t *Test) bool { return !t.Passed() }):
		r.Verdict = Pass
	case !p.passed && (p.finished || p.ended == Failed && unfinished == ""):
		r.Verdict = Fail
	default:
		r.Verdict, r.Running = Exited, unfinished
	}
	for _, t := range p.tests {
		for _, run := range t.Runs {
			if run.Status != Passed {
				run.Message, run.Printed = messages(run.raw)
			}
			run.clean(root, p.dir)
		}
	}
	p.outside.Printed = lines(p.outside.raw)
	p.outside.clean(root, p.dir)
	switch r.Verdict {
	case Exited, Flooded, TimedOut:
		if r.Text = p.last.Printed; crashed {
			r.Text = nil // the trace that testing prints for os.Exit(0)
		}
	case Fail:
		r.Text = p.outside.Printed
	default:
		relative(r.Text, root, p.dir)
	}
	return r
}

// buildVerdict reads what go said about the build that failed.
func (p *pkg) buildVerdict() (Verdict, []string) {
	verdict := DoesNotBuild
	if p.failedBuild == p.path || strings.HasPrefix(p.failedBuild, p.path+" [") {
		verdict = DoesNotCompile
	}
	var text []string
	for _, line := range p.stream.builds[p.failedBuild] {
		switch {
		case strings.HasPrefix(line, "# ["):
			verdict = Vet // go vet puts the package into brackets
		case !strings.HasPrefix(line, "#"):
			text = append(text, line)
		}
	}
	return verdict, text
}

// closeAncestors ends the tests around one that was reported as failed just
// before the process ended, as the lab does when its limit in real time is
// reached: they did not die for another reason.
func (p *pkg) closeAncestors() {
	if p.ended != Failed {
		return
	}
	for _, t := range p.tests {
		if strings.HasPrefix(p.endedName, t.Name+"/") || strings.HasPrefix(t.Name, p.endedName+"/") {
			for _, run := range t.Runs {
				if run.Status == Unfinished {
					run.Status = Failed
				}
			}
		}
	}
}

// running returns the test that began last among those that have not ended.
func (p *pkg) running() string {
	name := ""
	for _, t := range p.tests {
		if n := len(t.Runs); n > 0 && t.Runs[n-1].Status == Unfinished {
			name = t.Name
		}
	}
	return name
}

// crash finds the panic or the fatal error that ended a process in what it
// printed last: the text, and the trace that follows it.
func crash(raw []byte) (text string, trace []string, found bool) {
	all := lines(raw)
	for i, line := range slices.Backward(all) {
		if strings.HasPrefix(line, "goroutine ") && strings.HasSuffix(line, "]:") {
			trace, found = all[i:], true
		}
		if !found || strings.HasPrefix(line, "\t") { // "\tpanic: " is a panic that followed the first
			continue
		}
		for _, mark := range []string{"panic: ", "fatal error: "} {
			// Text without a newline may stand before it in the line.
			if at := strings.Index(line, mark); at >= 0 {
				text = strings.TrimPrefix(line[at:], "panic: ")
				text, _, _ = strings.Cut(text, " [recovered")
				return text, trace, true
			}
		}
	}
	return "", nil, false
}

// messages parts the output of a test into what it reported, which testing
// indents by four spaces, and all else. Lines that testing writes about the
// test itself ("=== RUN", "--- FAIL") belong to neither.
func messages(raw []byte) (message, printed []string) {
	for _, line := range lines(raw) {
		// What the code printed without a newline stands before the report.
		if at := strings.Index(line, "_test.go:"); at > 0 && line[0] != ' ' {
			if from := strings.LastIndex(line[:at], "    "); from > 0 {
				printed = append(printed, line[:from])
				line = line[from:]
			}
		}
		report, indented := strings.CutPrefix(line, "    ")
		file, rest, prefixed := strings.Cut(report, ".go:")
		number, said, _ := strings.Cut(rest, ": ")
		switch {
		case isFrame(line):
		case !indented:
			if line != "" {
				printed = append(printed, line)
			}
		case prefixed && file != "answer" && !strings.ContainsAny(file, " /\\") && isNumber(number):
			message = append(message, said)
		default:
			message = append(message, strings.TrimPrefix(report, "    "))
		}
	}
	return message, printed
}

func isFrame(line string) bool {
	for _, frame := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "--- PASS: ", "--- FAIL: ", "--- SKIP: "} {
		if strings.HasPrefix(line, frame) {
			return true
		}
	}
	return false
}

func lines(raw []byte) []string {
	if len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(unixLines(raw)), "\n"), "\n")
}

func (o *Outcome) clean(root, dir string) {
	relative(o.Message, root, dir)
	relative(o.Printed, root, dir)
	o.raw = nil
}

// relative turns the paths in the lines into paths from the module root, with
// slashes within the folder that was checked.
func relative(lines []string, root, dir string) {
	for i, line := range lines {
		line = strings.ReplaceAll(line, root+string(filepath.Separator), "")
		lines[i] = strings.ReplaceAll(line, filepath.FromSlash(dir)+string(filepath.Separator), dir+"/")
	}
}

// places returns the lines of answer.go that the text names as
// "answer.go:31", each once, in the order of the text.
func places(text []string) []int {
	var found []int
	for _, line := range text {
		for _, after := range strings.Split(line, "answer.go:")[1:] {
			n := 0
			for i := 0; i < len(after) && '0' <= after[i] && after[i] <= '9' && n < 1e6; i++ {
				n = 10*n + int(after[i]-'0')
			}
			if n > 0 && !slices.Contains(found, n) {
				found = append(found, n)
			}
		}
	}
	return found
}

// mentioned returns the functions that the text names.
func mentioned(funcs []Func, text []string) []Func {
	words := strings.FieldsFunc(strings.Join(text, " "), func(r rune) bool { return !inName(r) })
	var found []Func
	for _, f := range funcs {
		if slices.Contains(words, f.Name) {
			found = append(found, f)
		}
	}
	return found
}

func firstPlace(text []string) int {
	if found := places(text); len(found) > 0 {
		return found[0]
	}
	return 0
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func size(bytes int) string {
	if bytes >= 1<<20 && bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}
