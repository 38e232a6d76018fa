package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Each fixture's check asks whether answer returns 42. The answer of an
// untouched exercise is its starter.
const (
	check = `package main

import "testing"

func TestAnswerIs42(t *testing.T) {
	if got := answer(); got != 42 {
		t.Errorf("answer returned %d", got)
	}
}
`
	starter      = "package main\n\nfunc answer() int { return 0 }\n"
	wrong        = "package main\n\nfunc answer() int { return 1 }\n"
	right        = "package main\n\nfunc answer() int { return 42 }\n"
	hints        = "<details><summary>Hint 1</summary>\n\nIt is even.\n\n</details>\n<details><summary>Hint 2</summary>\nIt is 42.\n</details>\n"
	untouchedTwo = `02-two: 0 of 1 checks pass

  FAIL  Answer is 42

Answer is 42
  answer returned 0
  exercises/02-two/answer.go:3: func answer

Edit   exercises/02-two/answer.go
Again  go run ./exercises 02
Hint   go run ./exercises hint 02
`
)

// module writes a module with the exercises 01-one, 02-two and so on, one for
// each answer.
func module(t *testing.T, answers ...string) (root string) {
	t.Helper()
	root = t.TempDir()
	files := map[string]string{"go.mod": "module example.com/mygrpc\n\ngo 1.26.0\n"}
	for i, answer := range answers {
		name := []string{"01-one", "02-two", "03-three"}[i]
		files["exercises/"+name+"/answer.go"] = answer
		files["exercises/"+name+"/main.go"] = "package main\n\nfunc main() {}\n"
		files["exercises/"+name+"/main_test.go"] = check
		files["exercises/"+name+"/README.md"] = hints
		files["solutions/"+name+"/testdata/starter.go"] = starter
	}
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// lockedBuffer is the standard error of a run: the notice about a slow build
// and the go command may write to it at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// expect runs the companion in dir and compares what it prints and returns.
// Of standard error, only the last line is compared.
func expect(t *testing.T, dir, args string, code int, stdout, stderr string) {
	t.Helper()
	var out bytes.Buffer
	var errs lockedBuffer
	got := run(t.Context(), dir, strings.Fields(args), &out, &errs)
	if got != code {
		t.Errorf("%q: the exit code is %d, wanted %d", args, got, code)
	}
	if out.String() != stdout {
		t.Errorf("%q printed\n%s\nwanted\n%s", args, out.String(), stdout)
	}
	said := strings.Split(strings.TrimSuffix(errs.b.String(), "\n"), "\n")
	if last := said[len(said)-1]; stderr != "" && last != stderr {
		t.Errorf("%q said\n%s\nwanted\n%s", args, last, stderr)
	}
}

func TestTheListNamesEachStatusAndTheFirstFailure(t *testing.T) {
	t.Parallel()
	root := module(t, right, starter, wrong)
	expect(t, root, "", unsolved, "  solved     01-one\n  untouched  02-two\n  failing    03-three\n\n"+untouchedTwo, "")
}

func TestTheListRunsNoUntouchedExerciseBeyondTheFirst(t *testing.T) {
	t.Parallel()
	root := module(t, wrong, starter)
	trace := filepath.Join(root, "ran")
	text := strings.Replace(check, "import \"testing\"\n", "import (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc init() { os.WriteFile(`"+trace+"`, nil, 0o666) }\n", 1)
	if err := os.WriteFile(filepath.Join(root, "exercises", "02-two", "main_test.go"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(t.Context(), root, nil, &out, &lockedBuffer{}); code != unsolved {
		t.Errorf("the exit code is %d, wanted %d", code, unsolved)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("the untouched exercise was run")
	}
	// The same exercise does run when it is asked for, so the trace works.
	run(t.Context(), root, []string{"02"}, &out, &lockedBuffer{})
	if _, err := os.Stat(trace); err != nil {
		t.Errorf("the exercise that was asked for did not run: %v", err)
	}
}

func TestAllSolvedIsSuccess(t *testing.T) {
	t.Parallel()
	root := module(t, right, right)
	expect(t, root, "", solved, "  solved     01-one\n  solved     02-two\n\nAll 2 exercises are solved.\n", "")
}

func TestOneExerciseIsCheckedFromAnyFolder(t *testing.T) {
	t.Parallel()
	root := module(t, right, starter)
	expect(t, filepath.Join(root, "solutions", "01-one"), "two", unsolved, untouchedTwo, "")
	expect(t, root, "exercises/01-one/", solved, `01-one: solved, all 1 checks pass

Read   diff -u exercises/01-one/answer.go solutions/01-one/answer.go
Next   go run ./exercises 02
`, "")
}

func TestHintsComeOneByOne(t *testing.T) {
	t.Parallel()
	root := module(t, starter)
	expect(t, root, "hint 01", solved, "01-one, hint 1 of 2\n\nIt is even.\n\nMore   go run ./exercises hint 01 2\n", "")
	expect(t, root, "hint one 2", solved, "01-one, hint 2 of 2\n\nIt is 42.\n", "")
	expect(t, root, "hint 01 3", failed, "", "01-one has 2 hints, and no hint 3")
	expect(t, root, "hint 01 x", failed, "", `"x" is not the number of a hint`)
}

func TestWhatCannotBeDoneIsOneLine(t *testing.T) {
	t.Parallel()
	root := module(t, starter, starter)
	expect(t, root, "seven", failed, "", `no exercise "seven"; there are: 01-one, 02-two`)
	expect(t, root, "hint seven", failed, "", `no exercise "seven"; there are: 01-one, 02-two`)
	expect(t, root, "hint", failed, "", `a hint for which exercise? For example: go run ./exercises hint 01`)
	expect(t, root, "-v 01", failed, "", `cannot read "-v 01"; go run ./exercises help says what can be asked`)
	outside := t.TempDir()
	expect(t, outside, "01", failed, "", "no go.mod of example.com/mygrpc in "+outside+" or above it")
	expect(t, outside, "help", solved, usage, "")
}

func TestAnInterruptStopsTheCheck(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	var errs lockedBuffer
	if code := run(ctx, module(t, starter), []string{"01"}, &out, &errs); code != failed {
		t.Errorf("the exit code is %d, wanted %d", code, failed)
	}
	if out.Len() > 0 || errs.b.String() != "stopped\n" {
		t.Errorf("it printed %q and said %q, wanted nothing and \"stopped\"", out.String(), errs.b.String())
	}
}
