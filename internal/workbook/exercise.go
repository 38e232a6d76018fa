// Package workbook is what the learner's companion (exercises/main.go) and
// the workbook's own checks share: it finds the exercises, runs their checks
// with "go test -json", reads the results and says them in plain sentences.
//
// It imports the standard library only, so that the companion builds fast.
package workbook

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Module is the path of the workbook's module.
const Module = "example.com/mygrpc"

// An Exercise is one folder below exercises/, such as 03-client-streaming.
type Exercise struct {
	Root string // the folder of go.mod, absolute
	Name string // the folder's name, "03-client-streaming"
}

// Root walks up from dir to the folder that holds the go.mod of Module.
// The error says where the search began.
func Root(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find go.mod: %w", err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find go.mod: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "module "+Module {
				return at, nil
			}
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod of %s in %s or above it", Module, abs)
		}
	}
}

// Exercises lists the folders NN-name below exercises/ in the order of their
// numbers.
func Exercises(root string) ([]Exercise, error) {
	entries, err := os.ReadDir(filepath.Join(root, "exercises"))
	if err != nil {
		return nil, fmt.Errorf("list exercises: %w", err)
	}
	var list []Exercise
	for _, entry := range entries { // sorted by name, and so by number
		name := entry.Name()
		number, _, cut := strings.Cut(name, "-")
		if _, err := strconv.Atoi(number); entry.IsDir() && cut && len(number) == 2 && err == nil {
			list = append(list, Exercise{Root: root, Name: name})
		}
	}
	return list, nil
}

// Find returns the exercise that arg names: "3", "03", "client-streaming",
// "03-client-streaming", or a path that ends in the folder's name. The error
// for an unknown or an ambiguous name is one line that lists what exists.
func Find(list []Exercise, arg string) (Exercise, error) {
	want := path.Base(filepath.ToSlash(arg))
	number, notNumber := strconv.Atoi(want)
	var fits []Exercise
	for _, e := range list {
		n, _ := strconv.Atoi(e.Number())
		if want == e.Name || want == e.Name[3:] || notNumber == nil && number == n {
			fits = append(fits, e)
		}
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return Exercise{}, fmt.Errorf("no exercise %q; there are: %s", arg, names(list))
	}
	return Exercise{}, fmt.Errorf("%q names several exercises: %s", arg, names(fits))
}

func names(list []Exercise) string {
	var all []string
	for _, e := range list {
		all = append(all, e.Name)
	}
	return strings.Join(all, ", ")
}

// Number returns the two digits of the exercise's name.
func (e Exercise) Number() string { return e.Name[:2] }

// Dir returns the exercise's folder below the module root, with slashes.
func (e Exercise) Dir() string { return "exercises/" + e.Name }

// Answer returns the file that the learner edits, below the module root, with
// slashes.
func (e Exercise) Answer() string { return e.Dir() + "/answer.go" }

// Untouched reports whether answer.go still equals the exercise's starter,
// solutions/NN-name/testdata/starter.go. Line endings do not count, because
// git may have changed them. A missing answer.go is not untouched.
func (e Exercise) Untouched() (bool, error) {
	starter, err := os.ReadFile(filepath.Join(e.Root, "solutions", e.Name, "testdata", "starter.go"))
	if err != nil {
		return false, fmt.Errorf("compare with the starter: %w", err)
	}
	answer, err := os.ReadFile(filepath.Join(e.Root, filepath.FromSlash(e.Answer())))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare with the starter: %w", err)
	}
	return bytes.Equal(unixLines(answer), unixLines(starter)), nil
}

func unixLines(text []byte) []byte {
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
}

// Hints reads the folded hints of the exercise's README: the text of each
//
//	<details><summary>Hint 1</summary>
//	...
//	</details>
//
// block in the order of the file, without blank lines around it.
func (e Exercise) Hints() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(e.Root, "exercises", e.Name, "README.md"))
	if err != nil {
		return nil, fmt.Errorf("read hints: %w", err)
	}
	var hints []string
	blocks := strings.Split(string(unixLines(text)), "<summary>Hint ")[1:]
	for _, block := range blocks {
		_, hint, opened := strings.Cut(block, "</summary>")
		hint, _, closed := strings.Cut(hint, "</details>")
		if !opened || !closed {
			return nil, fmt.Errorf("read hints: %s/README.md: a hint is not closed by </details>", e.Dir())
		}
		hints = append(hints, strings.TrimSpace(hint))
	}
	return hints, nil
}
