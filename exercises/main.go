// The learner's companion. It shows where you stand, runs the check of an
// exercise and says in plain words what the check found.
//
//	go run ./exercises             all exercises, and the first unsolved one's check
//	go run ./exercises 03          the check of exercise 03
//	go run ./exercises hint 03     its first hint; "hint 03 2" is the second
//
// It writes no file and keeps no state. An exercise whose answer.go equals
// its starter is untouched and is not run; the go tool's cache answers for
// those that pass.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/mygrpc/internal/workbook"
)

const usage = `usage:
  go run ./exercises                    list all exercises and check the first unsolved one
  go run ./exercises <exercise>         check this one
  go run ./exercises hint <exercise>    print its first hint
  go run ./exercises hint <exercise> 2  print its second hint

An exercise is named by its number (3 or 03), its name (client-streaming) or its folder.
`

// What run returns: go run prints the code and exits with 1 itself.
const (
	solved   = 0
	unsolved = 1
	failed   = 2 // nothing could be checked
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(failed)
	}
	os.Exit(run(ctx, dir, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: dir is the working directory, and the
// result is the exit code.
func run(ctx context.Context, dir string, args []string, stdout, stderr io.Writer) int {
	c := companion{stdout: stdout, stderr: stderr}
	code, err := c.run(ctx, dir, args)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "stopped")
		return failed
	case err != nil:
		fmt.Fprintln(stderr, err)
		return failed
	}
	return code
}

type companion struct {
	root           string
	exercises      []workbook.Exercise
	stdout, stderr io.Writer
}

func (c *companion) run(ctx context.Context, dir string, args []string) (int, error) {
	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help" || args[0] == "help") {
		fmt.Fprint(c.stdout, usage)
		return solved, nil
	}
	var err error
	if c.root, err = workbook.Root(dir); err != nil {
		return 0, err
	}
	if c.exercises, err = workbook.Exercises(c.root); err != nil {
		return 0, err
	}
	switch {
	case len(args) == 0:
		return c.all(ctx)
	case args[0] == "hint" && (len(args) == 2 || len(args) == 3):
		return c.hint(args[1:])
	case len(args) == 1 && args[0] == "hint":
		return 0, errors.New("a hint for which exercise? For example: go run ./exercises hint 01")
	case len(args) == 1 && !strings.HasPrefix(args[0], "-"):
		e, err := workbook.Find(c.exercises, args[0])
		if err != nil {
			return 0, err
		}
		return c.one(ctx, e)
	}
	return 0, fmt.Errorf("cannot read %q; go run ./exercises help says what can be asked", strings.Join(args, " "))
}

// all lists the exercises and checks the first that is not solved.
func (c *companion) all(ctx context.Context) (int, error) {
	var touched []workbook.Exercise
	for _, e := range c.exercises {
		untouched, err := e.Untouched()
		if err != nil {
			return 0, err
		}
		if !untouched {
			touched = append(touched, e)
		}
	}
	results, err := c.check(ctx, touched...)
	if err != nil {
		return 0, err
	}
	var first *workbook.Exercise
	for i, e := range c.exercises {
		r, ran := results[e]
		status := "untouched"
		switch {
		case ran && r.Verdict == workbook.Pass:
			status = "solved"
		case ran:
			status = "failing"
		}
		if status != "solved" && first == nil {
			first = &c.exercises[i]
		}
		fmt.Fprintf(c.stdout, "  %-9s  %s\n", status, e.Name)
	}
	fmt.Fprintln(c.stdout)
	if first == nil {
		fmt.Fprintf(c.stdout, "All %d exercises are solved.\n", len(c.exercises))
		return solved, nil
	}
	if r, ran := results[*first]; ran {
		fmt.Fprint(c.stdout, first.Report(r))
		return unsolved, nil
	}
	return c.one(ctx, *first)
}

// one checks one exercise and prints what the check found.
func (c *companion) one(ctx context.Context, e workbook.Exercise) (int, error) {
	results, err := c.check(ctx, e)
	if err != nil {
		return 0, err
	}
	fmt.Fprint(c.stdout, e.Report(results[e]))
	if results[e].Verdict != workbook.Pass {
		return unsolved, nil
	}
	for i, other := range c.exercises {
		if other == e && i+1 < len(c.exercises) {
			fmt.Fprintf(c.stdout, "Next   go run ./exercises %s\n", c.exercises[i+1].Number())
		}
	}
	return solved, nil
}

func (c *companion) check(ctx context.Context, list ...workbook.Exercise) (map[workbook.Exercise]workbook.Result, error) {
	check := workbook.Check{Root: c.root, Progress: c.stderr}
	for _, e := range list {
		check.Dirs = append(check.Dirs, e.Dir())
	}
	// The first build compiles grpc, and nothing would be seen of it.
	notice := time.AfterFunc(5*time.Second, func() {
		fmt.Fprintln(c.stderr, "still compiling or checking; where gRPC has to be compiled first, it takes a minute or two")
	})
	defer notice.Stop()
	results, err := check.Run(ctx)
	if err != nil {
		return nil, err
	}
	of := map[workbook.Exercise]workbook.Result{}
	for i, e := range list {
		of[e] = results[i]
	}
	return of, nil
}

// hint prints one hint; args are the exercise and, if given, the number.
func (c *companion) hint(args []string) (int, error) {
	e, err := workbook.Find(c.exercises, args[0])
	if err != nil {
		return 0, err
	}
	hints, err := e.Hints()
	if err != nil {
		return 0, err
	}
	n := 1
	if len(args) == 2 {
		if n, err = strconv.Atoi(args[1]); err != nil {
			return 0, fmt.Errorf("%q is not the number of a hint", args[1])
		}
	}
	if n < 1 || n > len(hints) {
		return 0, fmt.Errorf("%s has %d hints, and no hint %d", e.Name, len(hints), n)
	}
	fmt.Fprintf(c.stdout, "%s, hint %d of %d\n\n%s\n", e.Name, n, len(hints), hints[n-1])
	if n < len(hints) {
		fmt.Fprintf(c.stdout, "\nMore   go run ./exercises hint %s %d\n", e.Number(), n+1)
	}
	return solved, nil
}
