package anatomy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"example.com/mygrpc/internal/anatomy"
)

const mainGo = `package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func main() {}

func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	lis, err = cfg.Listen(ctx, "tcp", "127.0.0.1:0")
	pipe := bufconn.Listen(1 << 20) // opens no port
	return err
}
`

const mainTestGo = `package main

import "testing"

func TestItIsSo(t *testing.T) { t.Log("a string may say t.Skip()") }

func TestItEnds(t *testing.T) { run(t.Context(), nil, 0) }
`

// Here and below ~ stands for a backtick, which a raw string cannot hold.
const chapterReadme = `# 01 · Alpha

A stream
ends **once**.

[embedmd]:# (wire.txt text /.*server\n/)
~~~text
  client │ server
~~~

## Predict

What comes after ~io.EOF~? See [the tests](main_test.go#L3) or [the web](https://go.dev/x).

## What happens

~~~sh
go run ./chapters/01-alpha
~~~

## What is true

- It is so. ~TestItIsSo~
- It is not otherwise,
  whatever happens. ~TestItIsSo/other_case~, ~TestItIsSo~ and ~TestItEnds~

## In production

Known.

## Exercise

[Do it](../../exercises/01-alpha).
`

const exerciseReadme = `# 01 · Alpha

## Task

About 15 minutes.

## You are done when

It passes.

## What the untouched check prints

[embedmd]:# (main.go go /package.*\n/)
~~~go
package main
~~~

## Hints

<details><summary>Hint 1</summary>

Look.

</details>
<details><summary>Hint 2</summary>

Look again.

</details>
<details><summary>Hint 3</summary>

Look there.

</details>
`

// wellFormed is a workbook of one chapter with which nothing is wrong.
func wellFormed() map[string]string {
	table := "# Workbook\n\n| chapter | lesson |\n|---|---|\n| [01-alpha](chapters/01-alpha) | ends |\n"
	for n := 2; n <= 34; n++ {
		table += fmt.Sprintf("| %02d-beta | to come |\n", n)
	}
	files := map[string]string{
		"README.md":        table,
		"CONTRIBUTING.md":  "See [the service](proto/).\n",
		"proto/feed.proto": "message Event {}\n",

		"chapters/01-alpha/README.md":    strings.ReplaceAll(chapterReadme, "~", "`"),
		"chapters/01-alpha/main.go":      mainGo,
		"chapters/01-alpha/main_test.go": mainTestGo,
		"chapters/01-alpha/wire.txt":     "  client │ server\n",

		"exercises/main.go":               "package main\n",
		"exercises/01-alpha/README.md":    strings.ReplaceAll(exerciseReadme, "~", "`"),
		"exercises/01-alpha/answer.go":    "package main\n\nthis need not compile\n",
		"exercises/01-alpha/main.go":      "package main\n",
		"exercises/01-alpha/main_test.go": "package main\n",

		"solutions/01-alpha/answer.go":           "package main\n",
		"solutions/01-alpha/main.go":             "package main\n",
		"solutions/01-alpha/main_test.go":        "package main\n",
		"solutions/01-alpha/testdata/starter.go": "package main\n",

		"internal/lab/lab_test.go": "package lab\nfunc victim(l *Lab) { l.SkipNow() }\n",
	}
	for i := range 5 {
		files[fmt.Sprintf("solutions/01-alpha/testdata/wrong/w%d.go", i)] = "package main\n"
	}
	for i := range 2 {
		files[fmt.Sprintf("solutions/01-alpha/testdata/right/r%d.go", i)] = "package main\n"
	}
	return files
}

// complaints returns everything that the rules have to say about files.
func complaints(files map[string]string) []string {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	found := anatomy.Workbook(fsys)
	for _, name := range anatomy.Chapters(fsys) {
		found = append(found, anatomy.Chapter(fsys, name)...)
	}
	return found
}

func TestAWellFormedWorkbookPasses(t *testing.T) {
	if got := complaints(wellFormed()); len(got) > 0 {
		t.Errorf("complaints about a well-formed workbook:\n%s", strings.Join(got, "\n"))
	}
}

// TestEachRuleCanFail breaks one thing at a time and wants the complaint about
// that thing and no other.
func TestEachRuleCanFail(t *testing.T) {
	const (
		readme  = "chapters/01-alpha/README.md"
		main    = "chapters/01-alpha/main.go"
		tests   = "chapters/01-alpha/main_test.go"
		wire    = "chapters/01-alpha/wire.txt"
		task    = "exercises/01-alpha/README.md"
		taskGo  = "exercises/01-alpha/main.go"
		solveGo = "solutions/01-alpha/main.go"
	)
	for _, m := range []struct {
		name     string
		file     string
		old, new string // old in file becomes new; without old the file is new; without both it is gone
		want     string
	}{
		// The workbook as a whole.
		{"exercise without chapter", "exercises/02-beta/answer.go", "", "x\n", "exercises/02-beta: there is no such chapter"},
		{"solution without chapter", "solutions/02-beta/answer.go", "", "x\n", "solutions/02-beta: there is no such chapter"},
		{"no contributing", "CONTRIBUTING.md", "", "", "CONTRIBUTING.md: missing"},
		{"link of the workbook", "CONTRIBUTING.md", "proto/", "protos/", "CONTRIBUTING.md:1: the link to protos/ leads nowhere"},
		{"no readme", "README.md", "", "", "README.md: missing"},
		{"row missing", "README.md", "| 34-beta | to come |\n", "", "README.md: the table has 33 chapters, want 34"},
		{"row out of order", "README.md", "34-beta", "35-beta", "README.md:38: 35-beta stands where chapter 34 is due"},
		{"to come, but exists", "README.md", "| ends |", "| to come |", "README.md:5: 01-alpha exists: want the link [01-alpha](chapters/01-alpha), and not the words to come"},
		{"exists, but no link", "README.md", "[01-alpha](chapters/01-alpha)", "01-alpha", "README.md:5: 01-alpha exists: want the link [01-alpha](chapters/01-alpha), and not the words to come"},
		{"neither exists nor is to come", "README.md", "| 02-beta | to come |", "| 02-beta | soon |", "README.md:6: 02-beta does not exist: want the words to come, and no link"},
		{"chapter not in table", "README.md", "[01-alpha](chapters/01-alpha) | ends", "01-gamma | to come", "README.md: the table lacks 01-alpha"},
		{"skip in a chapter", tests, `t.Log("a string may say t.Skip()")`, "t.Skip()", tests + ":5:33: a test must not skip"},
		{"skip in a benchmark", "internal/lab/lab_test.go", "lab\n", "lab\nfunc BenchmarkX(b *testing.B) { b.SkipNow() }\n", "internal/lab/lab_test.go:2:33: a test must not skip"},
		{"skip of a lab in a chapter", tests, `t.Log("a string may say t.Skip()")`, "l.SkipNow()", tests + ":5:33: a test must not skip"},
		{"skip in an exercise", "exercises/01-alpha/main_test.go", "main\n", "main\nfunc f(tb testing.TB) { tb.Skipf(``) }\n", "exercises/01-alpha/main_test.go:2:25: a test must not skip"},
		{"skip in a solution", "solutions/01-alpha/main_test.go", "main\n", "main\nfunc f(t *testing.T) { t.Skip() }\n", "solutions/01-alpha/main_test.go:2:24: a test must not skip"},
		{"no internal", "internal/lab/lab_test.go", "", "", "internal: cannot be read: open internal: file does not exist"},

		// A chapter's files.
		{"second program", "chapters/01-alpha/helper.go", "", "package main\n", "chapters/01-alpha/helper.go: a chapter is main.go and its tests"},
		{"no program", main, "", "", main + ": missing"},
		{"program that does not parse", main, "func main() {}", "func main() {", main + ":18:6: expected '(', found run (and 1 more errors)"},
		{"package", main, "package main", "package alpha", main + ": package alpha, want main"},
		{"internal import", main, "mygrpc/gen/feed/v1", "mygrpc/internal/lab", main + ":13:2: imports example.com/mygrpc/internal/lab, which a reader cannot take along"},
		{"foreign import", main, "golang.org/x/sync/errgroup", "golang.org/x/sync/semaphore", main + ":10:2: imports golang.org/x/sync/semaphore, which a reader cannot take along"},
		{"import that only begins alike", main, "google.golang.org/grpc", "google.golang.org/grpcx", main + ":11:2: imports google.golang.org/grpcx, which a reader cannot take along"},
		{"no run", main, "func run", "func start", main + ": want func run(ctx context.Context, w io.Writer, pace time.Duration) error"},
		{"run of another type", main, "w io.Writer, ", "", main + ": want func run(ctx context.Context, w io.Writer, pace time.Duration) error"},
		{"run as a method", main, "func run", "func (server) run", main + ": want func run(ctx context.Context, w io.Writer, pace time.Duration) error"},
		{"run without error", main, ") error {", ") {", main + ": want func run(ctx context.Context, w io.Writer, pace time.Duration) error"},
		{"dial", main, "func main() {", "func main() { grpc.Dial()", main + ":16:15: grpc.Dial is deprecated: use grpc.NewClient"},
		{"dial with context", main, "func main() {", "func main() { grpc.DialContext()", main + ":16:15: grpc.DialContext is deprecated: use grpc.NewClient"},
		{"block", main, "func main() {", "func main() { grpc.WithBlock()", main + ":16:15: grpc.WithBlock is deprecated: use grpc.NewClient"},
		{"all interfaces", main, `"127.0.0.1:0"`, `":0"`, main + `:19:14: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"computed address", main, `"127.0.0.1:0"`, `addr`, main + `:19:14: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"listener of a config", main, `net.Listen("tcp", "127.0.0.1:0")`, `cfg.Listen(ctx, "tcp", "[::]:0")`, main + `:19:14: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"another listener", main, `net.Listen("tcp", "127.0.0.1:0")`, `net.ListenTCP("tcp", nil)`, main + `:19:14: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"run untested", tests, "run(t.Context(), nil, 0)", "", tests + ": no test calls run"},
		{"no tests", tests, "", "", readme + ":13: the link to main_test.go leads nowhere\n" + readme + ":23: there is no test TestItIsSo\n" + readme + ":24: there is no test TestItIsSo\n" + readme + ":24: there is no test TestItEnds\n" + tests + ": missing"},
		{"no recording", wire, "", "", wire + ": missing\n" + readme + ": embedmd: line 6: could not read wire.txt: open chapters/01-alpha/wire.txt: file does not exist"},
		{"recording too wide", wire, "server\n", "server\n" + strings.Repeat("─", 101) + "\n", wire + ":2: 101 columns, want at most 100"},
		{"tab in the recording", wire, "server\n", "server\n\tx\n", wire + ":2: a tab"},
		{"space after the recording", wire, "server\n", "server\nx \n", wire + ":2: space at the end"},

		// A chapter's page.
		{"no page", readme, "", "", readme + ": missing"},
		{"too long", readme, "Known.\n", strings.Repeat("Known.\n", 79), readme + ": 111 lines, want at most 110"},
		{"title", readme, "# 01 · Alpha", "# 02 · Alpha", readme + ":1: want # 01 · Title"},
		{"no lesson", readme, "A stream\nends **once**.\n\n", "", readme + ": want the lesson in one sentence below the title"},
		{"lesson of two sentences", readme, "once**.", "once**. It does.", readme + ": want the lesson in one sentence below the title"},
		{"ladder too low", readme, "once**.\n", "once**.\n\n\n\n\n\n\n", readme + ": want the failure or the ladder in a block before the first heading, by line 12"},
		{"ladder below a heading", readme, "once**.\n\n[embedmd]:# (wire.txt text /.*server\\n/)\n~~~text\n  client │ server\n~~~\n\n## Predict\n", "once**.\n\n## Predict\n\n[embedmd]:# (wire.txt text /.*server\\n/)\n~~~text\n  client │ server\n~~~\n", readme + ": want the failure or the ladder in a block before the first heading, by line 12"},
		{"directive in a paragraph", readme, "once**.\n\n[embedmd]", "once**.\n[embedmd]", readme + ":5: want a blank line before the directive, or the page shows it"},
		{"no ladder", readme, "[embedmd]:# (wire.txt text /.*server\\n/)\n~~~text\n  client │ server\n~~~\n", "", readme + ": want the failure or the ladder in a block before the first heading, by line 12\n" + readme + ": does not show wire.txt"},
		{"commands first", readme, "once**.\n", "once**.\n~~~sh\nls\n~~~\n", readme + ": want the failure or the ladder in a block before the first heading, by line 12"},
		{"pasted block", readme, "Known.", "~~~go\nx := 1\n~~~", readme + ":29: a pasted block: pull it from a file with a directive on the line before"},
		{"tilde block", readme, "Known.", "^^^\nx := 1\n^^^", readme + ":29: want a block that starts with ~~~ in the first column\n" + readme + ":31: want a block that starts with ~~~ in the first column"},
		{"indented block", readme, "Known.", "Known:\n\n    x := 1\n", readme + ":31: want a block that starts with ~~~ in the first column"},
		{"stale block", readme, "  client │ server", "  server │ client", readme + ": a block differs from its file: go test ./chapters -update"},
		{"block from nowhere", readme, "Known.", "[embedmd]:# (gone.txt text)", readme + ": embedmd: line 29: could not read gone.txt: open chapters/01-alpha/gone.txt: file does not exist"},
		{"block from the network", readme, "Known.", "[embedmd]:# (https://go.dev/x.go go)", readme + ": embedmd: line 29: could not read https://go.dev/x.go: a block comes from a file of the workbook, not from the network"},
		{"no recording shown", readme, "(wire.txt text /.*server\\n/)\n~~~text\n  client │ server", "(main.go text /package.*\\n/)\n~~~text\npackage main", readme + ": does not show wire.txt"},
		{"heading missing", readme, "## In production\n\nKnown.\n", "", readme + `: the headings are ["Predict" "What happens" "What is true" "Exercise"], want ["Predict" "What happens" "What is true" "In production" "Exercise"]`},
		{"headings out of order", readme, "## Predict", "## What happens", readme + `: the headings are ["What happens" "What happens" "What is true" "In production" "Exercise"], want ["Predict" "What happens" "What is true" "In production" "Exercise"]`},
		{"no way to the exercise", readme, "(../../exercises/01-alpha)", "", readme + ": want a link to ../../exercises/01-alpha"},
		{"dead link", readme, "(main_test.go#L3)", "(mian_test.go#L3)", readme + ":13: the link to mian_test.go leads nowhere"},
		{"claim without a test", readme, "It is so. ~TestItIsSo~", "It is so.", readme + ":23: want the item to end with its tests: - It is so. ~TestItIsSo~"},
		{"test before the claim's end", readme, "It is so. ~TestItIsSo~", "~TestItIsSo~ says so.", readme + ":23: want the item to end with its tests: - It is so. ~TestItIsSo~"},
		{"claim outside the list", readme, "- It is so. ~TestItIsSo~", "It is so. ~TestItIsSo~\n", readme + ":23: not an item of the list, so no test proves it"},
		{"nothing claimed", readme, "- It is so. ~TestItIsSo~\n- It is not otherwise,\n  whatever happens. ~TestItIsSo/other_case~, ~TestItIsSo~ and ~TestItEnds~\n", "", readme + ": nothing is said to be true\n" + readme + ": no sentence names TestItIsSo\n" + readme + ": no sentence names TestItEnds"},
		{"test that is not there", readme, "~TestItIsSo/other_case~", "~TestGone/other_case~", readme + ":24: there is no test TestGone"},
		{"test without a claim", readme, " and ~TestItEnds~", "", readme + ": no sentence names TestItEnds"},
		{"test of another file without a claim", "chapters/01-alpha/more_test.go", "", "package main\nfunc TestMore(t *testing.T) {}\n", readme + ": no sentence names TestMore"},

		// An exercise and its solution.
		{"exercise's import", taskGo, "main\n", "main\nimport \"example.com/mygrpc/internal/lab\"\n", taskGo + ":2:8: imports example.com/mygrpc/internal/lab, which a reader cannot take along"},
		{"solution's import", solveGo, "main\n", "main\nimport \"example.com/mygrpc/internal/lab\"\n", solveGo + ":2:8: imports example.com/mygrpc/internal/lab, which a reader cannot take along"},
		{"exercise's listener", taskGo, "main\n", "main\nfunc main() { net.Listen(`tcp`, `:0`) }\n", taskGo + `:2:15: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"solution's listener", solveGo, "main\n", "main\nfunc main() { net.Listen(`tcp`, `:0`) }\n", solveGo + `:2:15: want Listen("tcp", "127.0.0.1:…"), address as a literal`},
		{"no exercise page", task, "", "", task + ": missing"},
		{"no exercise answer", "exercises/01-alpha/answer.go", "", "", "exercises/01-alpha/answer.go: missing"},
		{"no exercise program", taskGo, "", "", taskGo + ": missing\n" + task + ": embedmd: line 13: could not read main.go: open exercises/01-alpha/main.go: file does not exist"},
		{"no exercise check", "exercises/01-alpha/main_test.go", "", "", "exercises/01-alpha/main_test.go: missing"},
		{"no solution answer", "solutions/01-alpha/answer.go", "", "", "solutions/01-alpha/answer.go: missing"},
		{"no solution program", solveGo, "", "", solveGo + ": missing"},
		{"no solution check", "solutions/01-alpha/main_test.go", "", "", "solutions/01-alpha/main_test.go: missing"},
		{"no starter", "solutions/01-alpha/testdata/starter.go", "", "", "solutions/01-alpha/testdata/starter.go: missing"},
		{"too few wrong answers", "solutions/01-alpha/testdata/wrong/w4.go", "", "", "solutions/01-alpha/testdata/wrong/*.go: 4 files, want at least 5"},
		{"too few right answers", "solutions/01-alpha/testdata/right/r1.go", "", "", "solutions/01-alpha/testdata/right/*.go: 1 files, want at least 2"},
		{"exercise's headings", task, "## Task", "## Tasks", task + `: the headings are ["Tasks" "You are done when" "What the untouched check prints" "Hints"], want ["Task" "You are done when" "What the untouched check prints" "Hints"]`},
		{"no minutes", task, "About 15 minutes", "A while", task + ": want how long it takes: About 15 minutes"},
		{"two hints", task, "<details><summary>Hint 3</summary>\n\nLook there.\n\n</details>\n", "", task + `: want <details><summary>Hint N</summary>…</details> for 1, 2 and 3, found ["Hint 1" "Hint 2"]`},
		{"hint not closed", task, "Look there.\n\n</details>\n", "", task + `: want <details><summary>Hint N</summary>…</details> for 1, 2 and 3, found ["Hint 1" "Hint 2" "Hint 3"]`},
		{"stale exercise", task, "package main", "package gone", task + ": a block differs from its file: go test ./chapters -update"},
	} {
		t.Run(m.name, func(t *testing.T) {
			markdown := strings.NewReplacer("~", "`", "^", "~")
			m.old, m.new = markdown.Replace(m.old), markdown.Replace(m.new)
			files := wellFormed()
			switch {
			case m.old != "":
				if !strings.Contains(files[m.file], m.old) {
					t.Fatalf("%s does not contain %q: nothing is broken", m.file, m.old)
				}
				files[m.file] = strings.Replace(files[m.file], m.old, m.new, 1)
			case m.new != "":
				files[m.file] = m.new
			default:
				delete(files, m.file)
			}
			got := strings.Join(complaints(files), "\n")
			if want := markdown.Replace(m.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestChapterNames(t *testing.T) {
	for folder, want := range map[string]string{
		"Beta":      "chapters/Beta: want a name like 10-deaf-handler",
		"02":        "chapters/02: want a name like 10-deaf-handler",
		"03-beta":   "chapters/03-beta: number 02 is due",
		"01-beta":   "chapters/01-beta: number 02 is due",
		"00-before": "chapters/00-before: number 01 is due",
	} {
		files := wellFormed()
		files["chapters/"+folder+"/wire.txt"] = ""
		if got := complaints(files); !slices.Contains(got, want) {
			t.Errorf("with the folder %s: got %q, want %q among them", folder, got, want)
		}
	}
}

func TestNoChapterIsNoPass(t *testing.T) {
	files := wellFormed()
	maps.DeleteFunc(files, func(name, _ string) bool { return strings.HasPrefix(name, "chapters/") })
	if got := complaints(files); !slices.Contains(got, "chapters: there is not one chapter") {
		t.Errorf("got %q", got)
	}
}

func TestFreshPullsTheBlockAgain(t *testing.T) {
	fsys := fstest.MapFS{
		"chapters/01-alpha/README.md": {Data: []byte("x\n[embedmd]:# (main.go go /func old/ /^}/)\n```go\nstale\n```\ny\n")},
		"chapters/01-alpha/main.go":   {Data: []byte("package main\n\nfunc old() {\n}\n")},
	}
	got, err := anatomy.Fresh(fsys, anatomy.Docs(fsys)[0])
	want := "x\n[embedmd]:# (main.go go /func old/ /^}/)\n```go\nfunc old() {\n}\n```\ny\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
