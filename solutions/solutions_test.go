// Package solutions_test checks the checks. Every exercise is run, without
// touching a file, against its untouched starter, the reference answer, other
// right answers and the wrong answers that people write: its zoo, in
// solutions/NN-name/testdata. All is taken from the solution's folder, so that
// nothing depends on how far a learner has come in exercises/.
package solutions_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/mygrpc/internal/workbook"
)

var (
	update = flag.Bool("update", false, "rewrite what the untouched checks print in exercises/*/README.md")
	// go test -run would leave out their tests, and compile them all the same.
	wrong = flag.Bool("wrong", true, "build and test the wrong answers, too")
)

// count says how often each variant is tested, cpu with how many processors:
// what -count and -cpu say ends up here.
var (
	count uint
	cpu   string
)

// TestMain hands -count and -cpu down to the nested runs and runs the tests of
// this package once: a variant is then compiled once, and tested by one process
// after the other, since what it leaks slows its process down. Of a wrong
// answer the test is repeated that must fail.
func TestMain(m *testing.M) {
	flag.Parse()
	count = flag.Lookup("test.count").Value.(flag.Getter).Get().(uint)
	cpu = flag.Lookup("test.cpu").Value.String()
	for name, once := range map[string]string{"test.count": "1", "test.cpu": ""} {
		if err := flag.Set(name, once); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// A zoo is one exercise with its solution.
type zoo struct {
	workbook.Exercise
	slots     chan struct{} // one for each variant that may run at once
	test2json string        // turns what a test binary prints into events
}

// dir returns the solution's folder, or a path in it.
func (z zoo) dir(elem ...string) string {
	return filepath.Join(append([]string{z.Root, "solutions", z.Name}, elem...)...)
}

func zoos(t *testing.T) []zoo {
	t.Helper()
	root, err := workbook.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	list, err := workbook.Exercises(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("there are no exercises")
	}
	slots := make(chan struct{}, 2*min(2, runtime.NumCPU())) // some wait for a limit in real time
	var all []zoo
	for _, e := range list {
		all = append(all, zoo{Exercise: e, slots: slots})
	}
	return all
}

// TestZoo runs every variant of every exercise.
func TestZoo(t *testing.T) {
	all := zoos(t)
	readInputs(t, all[0].Root)
	test2json := filepath.Join(t.TempDir(), "test2json")
	if out, err := exec.Command("go", "build", "-o", test2json, "cmd/test2json").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, z := range all {
		z.test2json = test2json
		t.Run(z.Name, func(t *testing.T) {
			t.Parallel()
			z.test(t)
		})
	}
}

func (z zoo) test(t *testing.T) {
	variants := map[string]string{"starter": z.dir("testdata", "starter.go"), "reference": z.dir("answer.go")}
	for kind, atLeast := range map[string]int{"right": 2, "wrong": 5} {
		files, err := filepath.Glob(z.dir("testdata", kind, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) < atLeast {
			t.Errorf("%s has %d answers in testdata/%s, wanted %d or more", z.Name, len(files), kind, atLeast)
		}
		if kind == "wrong" && !*wrong {
			continue
		}
		for _, file := range files {
			variants[kind+"/"+strings.TrimSuffix(filepath.Base(file), ".go")] = file
		}
	}
	binary := z.build(t, variants)
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range count {
				z.judge(t, binary, name, variants[name])
				if t.Failed() {
					return
				}
			}
		})
	}
}

// judge tests a variant and proves that it fails or passes as it must.
func (z zoo) judge(t *testing.T, binary, name, file string) {
	kind, _, _ := strings.Cut(name, "/")
	if kind == "wrong" {
		z.caught(t, binary, name, file)
		return
	}
	r := z.run(t, binary, name, file)
	if kind == "starter" {
		sameEachTime(t, r)
		z.starter(t, r)
		return
	}
	if text := comment(t, file); kind == "right" && !strings.HasPrefix(text, "Right: ") {
		t.Errorf("the file begins with %q, wanted a comment \"// Right: ...\"", text)
	}
	if r.Verdict != workbook.Pass {
		t.Errorf("a right answer does not pass:\n%s", z.Report(r))
	}
}

// run tests one variant in a process of its own, with more flags if there are.
func (z zoo) run(t *testing.T, binary, variant, file string, more ...string) workbook.Result {
	t.Helper()
	z.slots <- struct{}{}
	defer func() { <-z.slots }()
	// Nested processes must not outlive this one when its time is over.
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-5*time.Second))
		defer cancel()
	}
	dir := "solutions/" + z.Name
	results, err := workbook.Check{
		Root:   z.Root,
		Dirs:   []string{dir},
		Answer: file,
		Program: append([]string{z.test2json, "-p", workbook.Module + "/" + dir,
			binary, "-test.v=test2json", "-test.paniconexit0", "-test.cpu=" + cpu}, more...),
		// A variant does not live long enough to need the garbage collector,
		// which costs a quarter of the processor time, and which in go1.26.8 has
		// ended one with "found pointer to free object": nobody knows why.
		Env: []string{"VARIANT=" + variant, "GOGC=off", "GOMEMLIMIT=512MiB"},
		// Other packages are tested at the same time, perhaps with -race.
		Limit: time.Minute,
	}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// starter proves that the untouched exercise fails, and that its README shows
// what the companion says about it.
func (z zoo) starter(t *testing.T, r workbook.Result) {
	if r.Verdict == workbook.Pass {
		t.Fatal("the untouched exercise passes its check")
	}
	text := z.Report(r)
	file := filepath.Join(z.Root, "exercises", z.Name, "README.md")
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := block(string(readme), "<!-- go run ./exercises "+z.Number()+" -->")
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if string(readme[from:to]) == text {
		return
	}
	if *update {
		if err := os.WriteFile(file, slices.Concat(readme[:from], []byte(text), readme[to:]), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s shows\n%s\nbut go run ./exercises %s prints\n%s\n(go test ./solutions -update rewrites it)",
		file, readme[from:to], z.Number(), text)
}

// block returns where the text of the fenced block begins and ends that
// follows the marker line.
func block(readme, marker string) (from, to int, err error) {
	before, after, found := strings.Cut(readme, marker+"\n```text\n")
	if !found {
		return 0, 0, fmt.Errorf("no line %q right before a line \"```text\"", marker)
	}
	from = len(before) + len(marker) + len("\n```text\n")
	if strings.HasPrefix(after, "```") {
		return from, from, nil
	}
	end := strings.Index(after, "\n```")
	if end < 0 {
		return 0, 0, errors.New("the block is not closed")
	}
	return from, from + end + 1, nil
}

// caught proves that a wrong answer fails in the test which its first comment
// names, with the message that it names, each time that it is tested. What
// else it does may differ from run to run.
func (z zoo) caught(t *testing.T, binary, variant, file string) {
	text := comment(t, file)
	if !strings.HasPrefix(text, "Wrong: ") {
		t.Fatalf("the file begins with %q, wanted a comment \"// Wrong: ...\"", text)
	}
	var fails string
	var says []string
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "Fails: "); ok {
			fails = strings.TrimSpace(name)
		}
		if piece, ok := strings.CutPrefix(line, "Says: "); ok {
			says = append(says, strings.TrimSpace(piece))
		}
	}
	if fails == "" || len(says) == 0 {
		t.Fatal("the first comment has no line \"Fails: ...\" or no line \"Says: ...\"")
	}
	var only []string
	if count > 1 || cpu != "" {
		only = []string{"-test.run=" + exactly(fails)}
	}
	r := z.run(t, binary, variant, file, only...)
	var said []string // by each run of the test
	switch test := r.Test(fails); {
	case r.Verdict == workbook.Pass:
		t.Fatal("a wrong answer passes the check")
	case r.Verdict == workbook.Fail:
		if test == nil || len(test.Runs) == 0 {
			t.Fatalf("%s has not run:\n%s", fails, z.Report(r))
		}
		for i, run := range test.Runs {
			if run.Status == workbook.Passed {
				t.Fatalf("%s passes in run %d of %d:\n%s", fails, i+1, len(test.Runs), z.Report(r))
			}
			said = append(said, strings.Join(run.Message, "\n"))
		}
	case r.Running != fails:
		t.Fatalf("the process ended in %q, wanted it in %q:\n%s\n%s", r.Running, fails, z.Report(r), strings.Join(r.Trace, "\n"))
	default:
		said = []string{z.Report(r)}
	}
	for _, text := range said {
		for _, piece := range says {
			if !strings.Contains(oneLine(text), oneLine(piece)) {
				t.Fatalf("%s says\n%s\nwhich does not contain\n%s", fails, text, piece)
			}
		}
	}
}

// exactly returns the value of -test.run that selects the one test or subtest.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// oneLine makes a text that was broken into lines comparable.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// sameEachTime proves that a test had one outcome only, whatever the number of
// processors.
func sameEachTime(t *testing.T, r workbook.Result) {
	t.Helper()
	for _, test := range r.Tests {
		for i, run := range test.Runs {
			first := test.Runs[0]
			if run.Status != first.Status || !slices.Equal(run.Message, first.Message) {
				t.Errorf("%s: run %d of %d %s, the first %s:\n%s\nthe first said\n%s", test.Name, i+1, len(test.Runs),
					run.Status, first.Status, strings.Join(run.Message, "\n"), strings.Join(first.Message, "\n"))
				break
			}
		}
	}
}

// comment returns the comment that the file begins with, without its slashes.
func comment(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		rest, found := strings.CutPrefix(line, "//")
		if !found {
			break
		}
		lines = append(lines, strings.TrimSpace(rest))
	}
	return strings.Join(lines, "\n")
}

func TestExerciseAndSolutionDifferInTheAnswerOnly(t *testing.T) {
	for _, z := range zoos(t) {
		for _, name := range []string{"main.go", "main_test.go"} {
			exercise := read(t, filepath.Join(z.Root, "exercises", z.Name, name))
			if !bytes.Equal(exercise, read(t, z.dir(name))) {
				t.Errorf("exercises/%s/%s and solutions/%s/%s differ", z.Name, name, z.Name, name)
			}
		}
	}
}

// readInputs reads every file that the nested runs compile. What a nested go
// command reads is no input of this test for the go tool's cache, which would
// say "ok (cached)" whatever happened to them; what the test reads is.
func readInputs(t *testing.T, root string) {
	t.Helper()
	for _, top := range []string{"go.mod", "go.sum", "internal", "gen", "solutions", "exercises"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			_, err = os.ReadFile(file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
