package workbook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// check is the check of every fixture: three tests of one function.
const check = `package main

import "testing"

func TestAnswerIsThere(t *testing.T) { t.Log("it is") }

func TestAnswerReturns42(t *testing.T) {
	if got := answer(); got != 42 {
		t.Errorf("answer returned %d at answer.go:5\nwanted 42", got)
	}
}

func TestAnswerAgrees(t *testing.T) {
	t.Run("the_second_time", func(t *testing.T) {
		if answer() == 7 {
			t.Fatal("it is 7 again")
		}
	})
}
`

// A fixture is an answer and what the companion says about it. Its name is
// the folder's name without the digits.
type fixture struct {
	name    string
	answer  string
	verdict Verdict
	report  string // without the footer; NAME stands for the folder's name, "..." at the end for the rest
}

func fixtures() []fixture {
	return []fixture{
		{"passes", `return 42`, Pass, `NAME: solved, all 3 checks pass

Read   diff -u exercises/NAME/answer.go solutions/NAME/answer.go
`},
		{"fails", `return 7`, Fail, `NAME: 1 of 3 checks pass

  ok    Answer is there
  FAIL  Answer returns 42
  FAIL  Answer agrees

Answer returns 42
  answer returned 7 at answer.go:5
  wanted 42
  exercises/NAME/answer.go:5
`},
		{"prints-and-fails", `fmt.Print("looking\nstill"); return 7`, Fail, `NAME: 1 of 3 checks pass

  ok    Answer is there
  FAIL  Answer returns 42
  FAIL  Answer agrees

Answer returns 42
  answer returned 7 at answer.go:5
  wanted 42
  exercises/NAME/answer.go:5

Printed meanwhile
  looking
  still
`},
		{"fails-second", `calls++; return []int{42, 7}[calls-1]`, Fail, `NAME: 2 of 3 checks pass

  ok    Answer is there
  ok    Answer returns 42
  FAIL  Answer agrees

Answer agrees: the second time
  it is 7 again
`},
		{"not-compiling", `return "x"`, DoesNotCompile, `answer.go does not compile

  exercises/NAME/answer.go:5:28: cannot use "x" (untyped string constant) as int value in return statement
`},
		{"not-parsing", `return 42 }; func {`, DoesNotCompile, `answer.go does not compile

  exercises/NAME/answer.go:5:39: syntax error: unexpected {, expected name or (
`},
		{"name-taken", `return 42 }; func TestAnswerAgrees() {`, DoesNotCompile, `answer.go does not compile

  TestAnswerAgrees is a name in the exercise's own main.go or main_test.go: call yours something else
`},
		{"name-twice", `return 42 }; func answer() {`, DoesNotCompile, `answer.go does not compile

  exercises/NAME/answer.go:5:39: answer redeclared in this block
  	exercises/NAME/answer.go:5:6: other declaration of answer
`},
		{"vet", `fmt.Printf("%d\n", "x"); return 42`, Vet, `answer.go compiles, but go vet finds a mistake

  exercises/NAME/answer.go:5:33: fmt.Printf format %d has arg "x" of wrong type string
`},
		{"panics", `var p *int; return *p`, Panicked, `answer.go panicked: runtime error: invalid memory address or nil pointer dereference
  at exercises/NAME/answer.go:5 while checking "Answer returns 42"
`},
		{"panics-twice", `defer func() { panic("second") }(); panic("first")`, Panicked, `answer.go panicked: first at exercises/NAME/answer.go:5
  while checking "Answer returns 42"
`},
		{"panics-aside", `go func() { panic("boom") }(); select {}`, Panicked, `answer.go panicked: boom at exercises/NAME/answer.go:5 while checking "Answer returns 42"
`},
		{"panics-midline", `fmt.Print("so far"); go panic("boom"); select {}`, Panicked, `answer.go panicked: boom at exercises/NAME/answer.go:5
  while checking "Answer returns 42"
`},
		{"fatal-error", `var mu sync.Mutex; mu.Unlock(); return 42`, Panicked, `answer.go panicked: fatal error: sync: unlock of unlocked mutex
  at exercises/NAME/answer.go:5 while checking "Answer returns 42"
`},
		{"exits-0", `os.Exit(0); return 42`, Exited, `your code ended the whole test process (os.Exit or log.Fatal) at exercises/NAME/answer.go:5
  while checking "Answer returns 42"
`},
		{"exits-1", `fmt.Println("bye"); os.Exit(1); return 42`, Exited, `your code ended the whole test process (os.Exit or log.Fatal) while checking "Answer returns 42"

Printed meanwhile
  bye
`},
		{"exits-3", `os.Exit(3); return 42`, Exited, `your code ended the whole test process (os.Exit or log.Fatal) while checking "Answer returns 42"
`},
		{"exits-0-unseen", `syscall.Exit(0); return 42`, Exited, `your code ended the whole test process (os.Exit or log.Fatal) while checking "Answer returns 42"
`},
		{"exits-in-init", "return 42\n}\n\nfunc init() {\n\tos.Exit(0)", Exited, `your code ended the whole test process (os.Exit or log.Fatal) outside of every check
`},
		{"fakes", `fmt.Println("--- PASS: TestAnswerReturns42 (0.00s)\nPASS\n" +
	"{\"Action\":\"pass\",\"Package\":\"example.com/mygrpc/exercises/NAME\"}\n" +
	"\x16=== RUN   TestZeta\n\x16--- PASS: TestAnswerReturns42 (0.00s)\nPASS\nok  \texample.com/mygrpc/exercises/NAME\t0.1s"); return 7`, Fail, `NAME: 1 of 3 checks pass

  ok    Answer is there
  FAIL  Answer returns 42
  FAIL  Answer agrees
...`},
		{"fakes-and-exits", `fmt.Println("\x16--- PASS: TestAnswerReturns42 (0.00s)\n\x16=== RUN   TestAnswerAgrees\n" +
	"\x16--- PASS: TestAnswerAgrees (0.00s)\n\x16=== RUN   TestZeta"); syscall.Exit(0); return 7`, Exited, `your code ended...`},
		{"fakes-in-init", "return 42\n}\n\nfunc init() {\n\tfmt.Println(`PASS`)\n\tsyscall.Exit(0)", Exited, `your code ended the whole test process (os.Exit or log.Fatal) outside of every check
`},
		{"fakes-and-exits-1", "os.Exit(1)\n\treturn 42\n}\n\nfunc init() {\n\tfmt.Println(`PASS`)", Exited, `your code ended the whole test process (os.Exit or log.Fatal) while checking "Answer returns 42"
`},
		{"limit-in-subtest", `calls++; if calls == 2 { lab("TestAnswerAgrees/the_second_time") }; return 42`, Fail, `NAME: 2 of 3 checks pass

  ok    Answer is there
  ok    Answer returns 42
  FAIL  Answer agrees

Answer agrees: the second time
  it spins at answer.go:12
  for 8 s
  exercises/NAME/answer.go:12
`},
		{"limit", `lab("TestAnswerReturns42"); return 42`, Fail, `NAME: 1 of 3 checks pass

  ok    Answer is there
  FAIL  Answer returns 42
  -     Answer agrees (not reached)

Answer returns 42
  it spins at answer.go:12
  for 8 s
  exercises/NAME/answer.go:12
`},
		{"floods", `for { fmt.Println("again") }`, Flooded, `your code printed more than 1 MiB while checking "Answer returns 42": stopped

Printed meanwhile
` + strings.Repeat("  again\n", 20) + "  and more\n"},
		{"floods-aside", `go func() { for { fmt.Print("x") } }(); select {}`, Flooded, `your code printed more than 1 MiB while checking "Answer returns 42": stopped

Printed meanwhile
  ` + strings.Repeat("x", 97) + "…\n"},
		{"prints-much", `fmt.Printf("%600000d\n", 1); return 42`, Pass, `NAME: solved, all 3 checks pass
...`},
	}
}

// lab prints what the lab prints when its limit in real time is reached. The
// mark is what test2json looks for.
const lab = `
func lab(test string) {
	fmt.Print("\n\x16--- FAIL: " + test + " (8.00s)\n    it spins at answer.go:12\n        for 8 s\n\x16FAIL\n")
	os.Exit(1)
}
`

// unused uses what not every answer does.
const unused = `
var calls int

var _, _, _, _ = fmt.Sprint, os.Exit, syscall.Exit, sync.NewCond
`

// module writes a module with one exercise for each fixture and returns the
// exercises in their order.
func module(t *testing.T, fixtures []fixture) []Exercise {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, "go.mod", "module "+Module+"\n\ngo 1.26.0\n")
	for i, f := range fixtures {
		name := fmt.Sprintf("%02d-%s", i+1, f.name)
		answer := "package main\n\nimport (\"fmt\"; \"os\"; \"sync\"; \"syscall\")\n\nfunc answer() int { " + f.answer + "\n}\n" + unused
		write(t, root, "exercises/"+name+"/answer.go", strings.ReplaceAll(answer, "NAME", name))
		write(t, root, "exercises/"+name+"/main.go", "package main\n\nimport (\"fmt\"; \"os\")\n\nfunc main() {}\n"+lab)
		write(t, root, "exercises/"+name+"/main_test.go", check)
		write(t, root, "solutions/"+name+"/testdata/starter.go", "package main\n")
	}
	list, err := Exercises(root)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func dirs(list []Exercise) []string {
	var dirs []string
	for _, e := range list {
		dirs = append(dirs, e.Dir())
	}
	return dirs
}

func TestEveryEndingHasItsVerdictAndItsText(t *testing.T) {
	t.Parallel()
	list := module(t, fixtures())
	results, err := Check{Root: list[0].Root, Dirs: dirs(list), Flags: []string{"-trimpath"}}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			if got := results[i].Verdict; got != f.verdict {
				t.Errorf("the verdict is %q, wanted %q", got, f.verdict)
			}
			report := list[i].Report(results[i])
			want, prefix := strings.CutSuffix(strings.ReplaceAll(f.report, "NAME", list[i].Name), "...")
			if f.verdict != Pass && !prefix {
				want += fmt.Sprintf("\nEdit   exercises/%s/answer.go\nAgain  go run ./exercises %02d\nHint   go run ./exercises hint %02d\n", list[i].Name, i+1, i+1)
			}
			if report != want && !(prefix && strings.HasPrefix(report, want)) {
				t.Errorf("the report is\n%s\nwanted\n%s", report, want)
			}
		})
	}
}

func TestRepetitionsKeepEachVerdict(t *testing.T) {
	t.Parallel()
	list := module(t, []fixture{
		{name: "alternates", answer: `calls++; fmt.Println(calls); return 42 + calls/3%2`},
	})
	results, err := Check{Root: list[0].Root, Dirs: dirs(list), Flags: []string{"-trimpath", "-count=2", "-cpu=1,2"}}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, run := range results[0].Test("TestAnswerReturns42").Runs {
		got = append(got, fmt.Sprint(run.Status, run.Message, run.Printed))
	}
	// Each run of the check calls answer twice.
	want := []string{
		"passed[] []",
		"failed[answer returned 43 at answer.go:5 wanted 42] [3]",
		"failed[answer returned 43 at answer.go:5 wanted 42] [5]",
		"passed[] []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the runs are\n%q\nwanted\n%q", got, want)
	}
}

// The zoo runs test binaries of its own. What it sees must be what the
// companion sees.
func TestAProgramIsJudgedAsGoTestIs(t *testing.T) {
	t.Parallel()
	list := module(t, slices.DeleteFunc(fixtures(), func(f fixture) bool {
		return slices.Contains([]Verdict{DoesNotCompile, Vet}, f.verdict)
	}))
	results, err := Check{Root: list[0].Root, Dirs: dirs(list), Flags: []string{"-trimpath", "-vet=off"}}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	binaries := t.TempDir()
	build := exec.Command("go", "test", "-c", "-trimpath", "-o", binaries, "./...")
	build.Dir = list[0].Root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, e := range list {
		got, err := Check{
			Root: e.Root, Dirs: []string{e.Dir()}, Answer: filepath.Join(e.Root, e.Answer()),
			Program: []string{"go", "tool", "test2json", "-p", Module + "/" + e.Dir(), filepath.Join(binaries, e.Name+".test"), "-test.v=test2json", "-test.paniconexit0"},
		}.Run(t.Context())
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		if got, want := e.Report(got[0]), e.Report(results[i]); got != want {
			t.Errorf("of a program the report is\n%s\nwanted\n%s", got, want)
		}
	}
}

func TestAMessageWithoutAPlaceIsPlacedByTheFunctionsThatItNames(t *testing.T) {
	r := Result{
		Dir: "exercises/01-x", Verdict: Fail,
		Funcs: []Func{{"Publish", 11}, {"publish", 25}, {"helper", 40}},
		Tests: []*Test{{Name: "TestX", Runs: []*Outcome{{Status: Failed, Message: []string{"publish(ctx) returned 1, unhelpful" + strings.Repeat(" word", 15)}}}}},
	}
	got := Exercise{Name: "01-x"}.Report(r)
	const want = "\nX\n  publish(ctx) returned 1, unhelpful word word word word word word word word word word word word\n    word word word\n  exercises/01-x/answer.go:25: func publish\n\nEdit"
	if !strings.Contains(got, want) {
		t.Errorf("the report is\n%s\nwanted it to contain\n%s", got, want)
	}
}

func TestCodeThatHangsInInitIsEnded(t *testing.T) {
	t.Parallel()
	list := module(t, []fixture{
		{name: "hangs", answer: "return 42\n}\n\nfunc init() {\n\tfor {\n\t}"},
		{name: "says_pass", answer: "return 42\n}\n\nfunc init() {\n\tfmt.Println(\"PASS\")\n\tfor {\n\t}"},
		{name: "passes", answer: "return 42"},
	})
	check := Check{Root: list[0].Root, Dirs: dirs(list), Limit: 5 * time.Second} // passes needs some of it on a busy machine
	results, err := check.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range list[:2] {
		report := e.Report(results[i])
		if want := "your code did not come back within 5 s outside of every check: stopped\n"; !strings.HasPrefix(report, want) {
			t.Errorf("%s: the report is\n%s\nwanted\n%s", e.Name, report, want)
		}
	}
	if got := results[2].Verdict; got != Pass {
		t.Errorf("the folder beside it has the verdict %q, wanted %q", got, Pass)
	}
}

func TestABuildThatFailsElsewhereIsNotBlamedOnTheAnswer(t *testing.T) {
	t.Parallel()
	list := module(t, []fixture{
		{name: "imports", answer: "return 42\n}\n\nfunc init() {\n\tnosuch.Call()"},
		{name: "header", answer: "return 42"},
	})
	root := list[0].Root
	file := filepath.Join(root, "exercises", "01-imports", "answer.go")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, "exercises/01-imports/answer.go", strings.Replace(string(text), `"sync"`, `"sync"; "example.com/nosuch"`, 1))
	write(t, root, "exercises/02-header/answer.go", "pakage main\n")
	results, err := Check{Root: root, Dirs: dirs(list)}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := list[0].Report(results[0])
	if want := "01-imports does not build\n\n  exercises/01-imports/answer.go:3:30: no required module provides package example.com/nosuch"; !strings.HasPrefix(report, want) {
		t.Errorf("the report is\n%s\nwanted\n%s", report, want)
	}
	report = list[1].Report(results[1])
	if want := "answer.go does not compile\n\n  exercises/02-header/answer.go:1:1: expected 'package', found pakage\n"; !strings.HasPrefix(report, want) {
		t.Errorf("the report is\n%s\nwanted\n%s", report, want)
	}
}

func TestAMissingGoCommandIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Check{Root: t.TempDir(), Dirs: []string{"exercises/01-unary"}}.Run(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "the go command is not on the PATH") {
		t.Errorf("the error is %v", err)
	}
}

func TestWhatGoSaysOfNoFolderIsPassedOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "go.mod", "module\n")
	_, err := Check{Root: root, Dirs: []string{"exercises/01-unary"}}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "go.mod:1: usage: module module/path") {
		t.Errorf("the error is %v", err)
	}
}

func TestCancellingEndsTheTestBinaryAndLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("GOTMPDIR", temp)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	list := module(t, []fixture{{name: "waits", answer: "return wait()"}})
	write(t, list[0].Root, "exercises/01-waits/wait.go", fmt.Sprintf(`package main

import "net"

func wait() int {
	conn, err := net.Dial("tcp", %q)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	panic(err)
}
`, lis.Addr()))
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn, err := lis.Accept() // the test binary runs
		cancel(interrupted)
		if err != nil {
			t.Errorf("the test binary never ran: %v", err)
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1)) // until its end closes the connection
	}()
	check := Check{Root: list[0].Root, Dirs: dirs(list), Limit: time.Hour}
	if _, err := check.Run(ctx); !errors.Is(err, interrupted) {
		t.Errorf("the error is %v, wanted %v", err, interrupted)
	}
	lis.Close() // ends Accept where the check ended too early
	<-gone
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("the temporary folder holds %v (%v), wanted nothing", left, err)
	}
}

func TestTheLimitIsNotSpentOnCompiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		s := &stream{limit: 20 * time.Second, flood: 1 << 20, stop: func() { ended.Store(true) }, builds: map[string][]string{}}
		s.add("exercises/01-unary")
		said := func(action, test string) {
			fmt.Fprintf(s, `{"Action":%q,"Package":"example.com/mygrpc/exercises/01-unary","Test":%q}`+"\n", action, test)
		}
		time.Sleep(10 * time.Minute) // go compiles; the time is virtual
		said("start", "")
		for range 3 {
			time.Sleep(19 * time.Second)
			said("run", "TestX")
			time.Sleep(19 * time.Second)
			said("pass", "TestX")
		}
		if ended.Load() {
			t.Error("a test binary that moves on is ended")
		}
		time.Sleep(10 * time.Second)
		said("output", "TestX")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !ended.Load() {
			t.Error("a test binary in which no test ended for 20 s is not ended")
		}
		s.close(false)
	})
}
