package solutions_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"example.com/mygrpc/internal/workbook"
)

// build compiles every variant of an exercise into one test binary, each as a
// package of its own beside a copy of main.go and of the check, and returns
// the binary. The variable VARIANT in its environment says which one to test.
// Compiling and linking each variant with "go test -overlay" gives the same
// verdicts and takes 2.5 times the processor time.
//
// The packages stand in a module of their own in a temporary folder, and line
// directives give every line its place in the solution's folder. With -trimpath
// the name of that folder is in nothing that is compiled, so the go tool's
// cache has what did not change since the last run.
func (z zoo) build(t *testing.T, variants map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	mod := string(read(t, filepath.Join(z.Root, "go.mod")))
	put(t, filepath.Join(dir, "go.mod"), strings.Replace(mod, "module "+workbook.Module,
		fmt.Sprintf("module %[1]s/zoo\n\nrequire %[1]s v0.0.0\n\nreplace %[1]s => %[2]s", workbook.Module, z.Root), 1))
	put(t, filepath.Join(dir, "go.sum"), string(read(t, filepath.Join(z.Root, "go.sum"))))
	for name, answer := range variants {
		for as, file := range map[string]string{"answer.go": answer, "main.go": z.dir("main.go"), "main_test.go": z.dir("main_test.go")} {
			text := regexp.MustCompile(`(?m)^package main$`).ReplaceAllString(string(read(t, file)), "package variant")
			put(t, filepath.Join(dir, name, strings.Replace(as, "_test", "_check", 1)), "//line "+z.dir(as)+":1\n"+text)
		}
	}
	var source bytes.Buffer
	err := zooTest.Execute(&source, map[string]any{
		"Module":   workbook.Module + "/zoo",
		"Variants": slices.Sorted(maps.Keys(variants)),
		"Tests":    regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(string(read(t, z.dir("main_test.go"))), -1),
		"Main":     bytes.Contains(read(t, z.dir("main_test.go")), []byte("\nfunc TestMain(")),
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "zoo_test.go"), source.String())

	z.slots <- struct{}{}
	defer func() { <-z.slots }()
	binary := filepath.Join(dir, "zoo.test")
	for _, args := range [][]string{
		// What go test has of go vet; a learner's answer must pass it first.
		{"vet", "-trimpath", "-atomic", "-bool", "-buildtag", "-directive", "-errorsas", "-ifaceassert", "-nilfunc", "-printf", "-stringintconv", "./..."},
		append(append([]string{"test", "-c", "-trimpath", "-vet=off", "-o", binary}, raceFlags()...), "."),
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("a variant of %s does not build: go %s: %v\n%s", z.Name, args[0], err, out)
		}
	}
	return binary
}

// zooTest is the test file of the binary: the tests of the check, each of
// which asks for the variant.
var zooTest = template.Must(template.New("").Parse(`package zoo

import (
	"os"
	"testing"
{{range $i, $v := .Variants}}
	v{{$i}} "{{$.Module}}/{{$v}}"{{end}}
)
{{range .Tests}}{{$test := index . 1}}
func {{$test}}(t *testing.T) {
	switch os.Getenv("VARIANT") { {{range $i, $v := $.Variants}}
	case "{{$v}}":
		v{{$i}}.{{$test}}(t){{end}}
	default:
		t.Fatal("which variant?")
	}
}
{{end}}{{if .Main}}
func TestMain(m *testing.M) {
	switch os.Getenv("VARIANT") { {{range $i, $v := .Variants}}
	case "{{$v}}":
		v{{$i}}.TestMain(m){{end}}
	}
}
{{end}}`))

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}
