package workbook

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	width   = 100 // columns of what the workbook itself says
	excerpt = 20  // lines of what the learner's code printed
)

// Report returns the companion's text for a result of the exercise: plain
// text, the same for every run with the same outcome. The result may come
// from the exercise's solution folder; the text names the exercise's paths.
func (e Exercise) Report(r Result) string {
	var b strings.Builder
	if r.Verdict == Pass {
		fmt.Fprintf(&b, "%s: solved, all %d checks pass\n\n", e.Name, len(topLevel(r)))
		fmt.Fprintf(&b, "Read   diff -u %s solutions/%s/answer.go\n", e.Answer(), e.Name)
		return b.String()
	}
	switch r.Verdict {
	case Fail:
		writeFailure(&b, e, r)
	case DoesNotCompile, Vet, DoesNotBuild:
		fmt.Fprintf(&b, "%s\n\n", verdictLine(e, r))
		text := r.Text
		if names := taken(text); len(names) > 0 {
			// What the compiler says of them beside that only confuses.
			text = nil
			for _, name := range names {
				text = append(text, name+" is a name in the exercise's own main.go or main_test.go: call yours something else")
			}
		}
		writeIndented(&b, text)
	default:
		fmt.Fprintf(&b, "%s\n", verdictLine(e, r))
		if r.Verdict != Panicked {
			writePrinted(&b, r.Text)
		}
	}
	fmt.Fprintf(&b, "\nEdit   %s\n", e.Answer())
	fmt.Fprintf(&b, "Again  go run ./exercises %s\n", e.Number())
	fmt.Fprintf(&b, "Hint   go run ./exercises hint %s\n", e.Number())
	return strings.ReplaceAll(b.String(), r.Dir+"/", e.Dir()+"/")
}

// taken returns the names that are declared in answer.go and beside it.
func taken(text []string) []string {
	var names []string
	for i, line := range text[:max(0, len(text)-1)] {
		_, said, _ := strings.Cut(line, ": ")
		name, redeclared := strings.CutSuffix(said, " redeclared in this block")
		if redeclared && strings.Contains(line, "/answer.go:") != strings.Contains(text[i+1], "/answer.go:") {
			names = append(names, name)
		}
	}
	return names
}

// verdictLine says in one sentence how a check ended that no test could judge.
func verdictLine(e Exercise, r Result) string {
	who, at, when := "the check", "", "outside of every check"
	if r.Line > 0 {
		who, at = "answer.go", fmt.Sprintf("at %s:%d", e.Answer(), r.Line)
	}
	if r.Running != "" {
		when = fmt.Sprintf("while checking %q", Sentence(r.Running))
	}
	switch r.Verdict {
	case DoesNotCompile:
		return "answer.go does not compile"
	case Vet:
		return "answer.go compiles, but go vet finds a mistake"
	case DoesNotBuild:
		return e.Name + " does not build"
	case Panicked:
		return clauses(who+" panicked: "+strings.Join(r.Text, " "), at, when)
	case Exited:
		return clauses("your code ended the whole test process (os.Exit or log.Fatal)", at, when)
	case Flooded:
		return clauses("your code printed more than "+r.Limit, when+": stopped")
	default:
		return clauses("your code did not come back within "+r.Limit, when+": stopped")
	}
}

// writeFailure lists the tests and gives the first failed one's message.
func writeFailure(b *strings.Builder, e Exercise, r Result) {
	tests, passed := topLevel(r), 0
	for _, t := range tests {
		if t.Passed() {
			passed++
		}
	}
	fmt.Fprintf(b, "%s: %d of %d checks pass\n\n", e.Name, passed, len(tests))
	for _, t := range tests {
		switch {
		case len(t.Runs) == 0:
			fmt.Fprintf(b, "  -     %s (not reached)\n", Sentence(t.Name))
		case t.Passed():
			fmt.Fprintf(b, "  ok    %s\n", Sentence(t.Name))
		default:
			fmt.Fprintf(b, "  FAIL  %s\n", Sentence(t.Name))
		}
	}
	t := firstFailure(r)
	if t == nil {
		b.WriteString("\nNo test failed, and yet the test process did\n")
		writePrinted(b, r.Text)
		return
	}
	run := t.Failure()
	fmt.Fprintf(b, "\n%s\n", Sentence(t.Name))
	writeMessage(b, run.Message)
	at := places(run.Message)
	for _, line := range at {
		fmt.Fprintf(b, "  %s:%d\n", e.Answer(), line)
	}
	if len(at) == 0 { // the check saw what a function did, not which of its lines
		for _, f := range mentioned(r.Funcs, run.Message) {
			fmt.Fprintf(b, "  %s:%d: func %s\n", e.Answer(), f.Line, f.Name)
		}
	}
	writePrinted(b, run.Printed)
}

// firstFailure returns the first failed test that has something to say, a
// subtest before the test that it belongs to.
func firstFailure(r Result) *Test {
	var parent *Test
	for _, t := range r.Tests {
		if t.Failure() == nil {
			continue
		}
		if !strings.Contains(t.Name, "/") {
			if parent != nil {
				break // its subtests had nothing to say
			}
			parent = t
			continue
		}
		if len(t.Failure().Message) > 0 {
			return t
		}
	}
	return parent
}

func topLevel(r Result) []*Test {
	var tests []*Test
	for _, t := range r.Tests {
		if !strings.Contains(t.Name, "/") {
			tests = append(tests, t)
		}
	}
	return tests
}

func writeIndented(b *strings.Builder, lines []string) {
	for _, line := range lines {
		b.WriteString(strings.TrimRight("  "+line, " ") + "\n")
	}
}

// writeMessage breaks lines between words at width columns.
func writeMessage(b *strings.Builder, lines []string) {
	for _, line := range lines {
		text := " "
		for i, word := range strings.Split(line, " ") {
			if i > 0 && utf8.RuneCountInString(text+word)+1 > width {
				b.WriteString(strings.TrimRight(text, " ") + "\n")
				text = "   "
			}
			text += " " + word
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
}

// writePrinted shows the beginning of what the code printed.
func writePrinted(b *strings.Builder, printed []string) {
	if len(printed) == 0 {
		return
	}
	b.WriteString("\nPrinted meanwhile\n")
	for i, line := range printed {
		if i == excerpt {
			b.WriteString("  and more\n")
			return
		}
		if utf8.RuneCountInString(line) > width-2 {
			line = string([]rune(line)[:width-3]) + "…"
		}
		writeIndented(b, []string{line})
	}
}

// clauses joins the clauses of a sentence by spaces, and begins a new line,
// indented by two spaces, before a clause that would go beyond width columns.
func clauses(all ...string) string {
	text, column := "", 0
	for _, clause := range all {
		n := utf8.RuneCountInString(clause)
		switch {
		case clause == "":
			continue
		case column == 0:
		case column+1+n > width:
			text += "\n  "
			column = 2
		default:
			text += " "
			column++
		}
		text += clause
		column += n
	}
	return text
}
