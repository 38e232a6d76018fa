// Package anatomy holds the workbook against its own rules: what a chapter,
// its exercise and its solution consist of, that every sentence names its
// test, and that what a page shows is what the files say.
//
// The rules read file names, syntax and text, nothing else. Whether the tests
// pass, other tests say.
package anatomy

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// total is how many chapters the workbook has when it is complete.
const total = 34

const (
	maxReadmeLines = 110 // a chapter is read in one sitting
	maxColumns     = 100 // a ladder that is wider wraps on a web page
	firstScreen    = 12  // by this line the reader sees the failure
	minWrong       = 5
	minRight       = 2
)

// A check gathers complaints, each with the file that it is about, relative
// to the root of the workbook.
type check struct {
	fsys       fs.FS
	complaints []string
}

func (c *check) addf(format string, args ...any) {
	complaint := fmt.Sprintf(format, args...)
	if !slices.Contains(c.complaints, complaint) { // two rules may want the same file
		c.complaints = append(c.complaints, complaint)
	}
}

// read returns the text of a file that must be there.
func (c *check) read(name string) (string, bool) {
	text, err := fs.ReadFile(c.fsys, name)
	if err != nil {
		c.addf("%s: missing", name)
		return "", false
	}
	return string(text), true
}

func (c *check) glob(pattern string) []string {
	found, err := fs.Glob(c.fsys, pattern)
	if err != nil { // a folder whose name is a bad pattern
		c.addf("%s: %v", pattern, err)
	}
	return found
}

// Chapters lists the folders under chapters/, in order.
func Chapters(fsys fs.FS) []string { return folders(fsys, "chapters") }

func folders(fsys fs.FS, dir string) []string {
	// What is not there has no folders; Workbook says that it is not there.
	entries, _ := fs.ReadDir(fsys, dir)
	var found []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "testdata" {
			found = append(found, e.Name())
		}
	}
	return found
}

// Docs lists the Markdown files whose blocks are kept fresh.
func Docs(fsys fs.FS) []string {
	c := check{fsys: fsys}
	return slices.Concat(c.glob("*.md"), c.glob("chapters/*/README.md"), c.glob("exercises/*/README.md"))
}

// Workbook returns what is wrong with the workbook as a whole.
func Workbook(fsys fs.FS) []string {
	c := &check{fsys: fsys}
	chapters := Chapters(fsys)
	if len(chapters) == 0 {
		c.addf("chapters: there is not one chapter")
	}
	for i, name := range chapters {
		if !chapterName.MatchString(name) {
			c.addf("chapters/%s: want a name like 10-deaf-handler", name)
		} else if !strings.HasPrefix(name, fmt.Sprintf("%02d-", i+1)) {
			c.addf("chapters/%s: number %02d is due", name, i+1)
			break // all later ones are off by as much
		}
	}
	for _, dir := range []string{"exercises", "solutions"} {
		for _, name := range folders(fsys, dir) {
			if !slices.Contains(chapters, name) {
				c.addf("%s/%s: there is no such chapter", dir, name)
			}
		}
	}
	c.doc("CONTRIBUTING.md")
	if text, ok := c.doc("README.md"); ok {
		c.table(parse(text), chapters)
	}
	for _, dir := range []string{"chapters", "exercises", "solutions", "internal"} {
		err := fs.WalkDir(fsys, dir, func(name string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(name, "_test.go") {
				c.noSkips(name)
			}
			return err
		})
		if err != nil {
			c.addf("%s: cannot be read: %v", dir, err)
		}
	}
	return c.complaints
}

var (
	chapterName = regexp.MustCompile(`^\d\d(-[a-z0-9]+)+$`)
	rowName     = regexp.MustCompile(`\b\d\d(?:-[a-z0-9]+)+\b`)
)

// table checks that the README's table lists every chapter, in order, and
// tells those that exist from those to come.
func (c *check) table(p page, chapters []string) {
	var rows []string
	for i, line := range p.prose {
		name := rowName.FindString(line)
		if !strings.HasPrefix(line, "|") || name == "" {
			continue
		}
		rows = append(rows, name)
		if !strings.HasPrefix(name, fmt.Sprintf("%02d-", len(rows))) {
			c.addf("README.md:%d: %s stands where chapter %02d is due", i+1, name, len(rows))
		}
		linked := strings.Contains(line, fmt.Sprintf("[%s](chapters/%s)", name, name))
		toCome := strings.Contains(line, "to come")
		switch exists := slices.Contains(chapters, name); {
		case exists && (!linked || toCome):
			c.addf("README.md:%d: %s exists: want the link [%[2]s](chapters/%[2]s), and not the words to come", i+1, name)
		case !exists && (linked || !toCome):
			c.addf("README.md:%d: %s does not exist: want the words to come, and no link", i+1, name)
		}
	}
	if len(rows) != total {
		c.addf("README.md: the table has %d chapters, want %d", len(rows), total)
	}
	for _, name := range chapters {
		if !slices.Contains(rows, name) {
			c.addf("README.md: the table lacks %s", name)
		}
	}
}

// Chapter returns what is wrong with one chapter, its exercise and its
// solution.
func Chapter(fsys fs.FS, name string) []string {
	c := &check{fsys: fsys}
	dir := path.Join("chapters", name)
	c.recording(dir)
	tests := c.tests(dir)
	if text, ok := c.doc(path.Join(dir, "README.md")); ok {
		c.chapterPage(name, text, tests)
	}
	for _, file := range c.glob(path.Join(dir, "*.go")) {
		if path.Base(file) != "main.go" && !strings.HasSuffix(file, "_test.go") {
			c.addf("%s: a chapter is main.go and its tests", file)
		}
	}
	if file := c.program(path.Join(dir, "main.go")); file != nil && !hasRun(file) {
		c.addf("%s/main.go: want func run%s", dir, strings.TrimPrefix(runFunc, "func"))
	}
	if _, file := c.goFile(path.Join(dir, "main_test.go")); file != nil && !callsRun(file) {
		c.addf("%s/main_test.go: no test calls run", dir)
	}

	dir = path.Join("exercises", name)
	c.exists(dir, "answer.go", "main_test.go")
	c.program(path.Join(dir, "main.go"))
	if text, ok := c.doc(path.Join(dir, "README.md")); ok {
		c.exercisePage(path.Join(dir, "README.md"), text)
	}

	dir = path.Join("solutions", name)
	c.exists(dir, "answer.go", "main_test.go", "testdata/starter.go")
	c.program(path.Join(dir, "main.go"))
	c.atLeast(minWrong, path.Join(dir, "testdata/wrong/*.go"))
	c.atLeast(minRight, path.Join(dir, "testdata/right/*.go"))
	return c.complaints
}

// exists does not read: an answer.go that does not compile yet is no fault.
func (c *check) exists(dir string, names ...string) {
	for _, name := range names {
		if _, err := fs.Stat(c.fsys, path.Join(dir, name)); err != nil {
			c.addf("%s: missing", path.Join(dir, name))
		}
	}
}

func (c *check) atLeast(n int, pattern string) {
	if found := len(c.glob(pattern)); found < n {
		c.addf("%s: %d files, want at least %d", pattern, found, n)
	}
}

// recording checks wire.txt, which must read alike in a terminal and on a page.
func (c *check) recording(dir string) {
	name := path.Join(dir, "wire.txt")
	text, _ := c.read(name)
	for i, line := range strings.Split(text, "\n") {
		if n := utf8.RuneCountInString(line); n > maxColumns {
			c.addf("%s:%d: %d columns, want at most %d", name, i+1, n, maxColumns)
		}
		if strings.Contains(line, "\t") {
			c.addf("%s:%d: a tab", name, i+1)
		}
		if line != strings.TrimRight(line, " \r") {
			c.addf("%s:%d: space at the end", name, i+1)
		}
	}
}

var (
	title     = regexp.MustCompile(`^# (\d\d) · \S.*$`)
	sentences = regexp.MustCompile("[.!?][*_\"')]* +[*_\"'(`]*[A-Z]")
	sentence  = regexp.MustCompile(`^[^#|>].*[.!?][*_]*$`)
	// One or more test names at the end of a claim.
	claim    = regexp.MustCompile("^.*?\\S((?:(?:,| and|, and)? `Test[^` ]+`)+)$")
	testName = regexp.MustCompile("`(Test[^`/]+)[^`]*`")
)

// chapterPage checks a chapter's README against the tests of the chapter.
func (c *check) chapterPage(chapter, text string, tests []string) {
	name := path.Join("chapters", chapter, "README.md")
	p := parse(text)
	if n := strings.Count(text, "\n"); n > maxReadmeLines {
		c.addf("%s: %d lines, want at most %d", name, n, maxReadmeLines)
	}
	if m := title.FindStringSubmatch(p.prose[0]); m == nil || m[1] != chapter[:min(2, len(chapter))] {
		c.addf("%s:1: want # %s · Title", name, chapter[:min(2, len(chapter))])
	}
	if lesson := p.lesson(); !sentence.MatchString(lesson) || sentences.MatchString(lesson) {
		c.addf("%s: want the lesson in one sentence below the title", name)
	}
	if !p.opensWithBlock() {
		c.addf("%s: want the failure or the ladder in a block before the first heading, by line %d", name, firstScreen)
	}
	for _, f := range p.fences {
		if f.info != "sh" && !f.pulled {
			c.addf("%s:%d: a pasted block: pull it from a file with a directive on the line before", name, f.line)
		}
	}
	for i, line := range p.prose {
		indented := i > 0 && p.prose[i-1] == "" && strings.HasPrefix(line, "    ")
		if indented || foreignBlock.MatchString(line) {
			c.addf("%s:%d: want a block that starts with ``` in the first column", name, i+1)
		}
	}
	if !strings.Contains(text, directive+" (wire.txt") {
		c.addf("%s: does not show wire.txt", name)
	}
	c.headings(name, p, "Predict", "What happens", "What is true", "In production", "Exercise")
	if !strings.Contains(text, "(../../exercises/"+chapter) {
		c.addf("%s: want a link to ../../exercises/%s", name, chapter)
	}
	c.claims(name, p.section("What is true"), tests)
}

// opensWithBlock reports whether the first screen shows more than commands.
func (p page) opensWithBlock() bool {
	if len(p.fences) == 0 {
		return false
	}
	first := p.fences[0]
	return first.info != "sh" && first.line <= firstScreen &&
		!slices.ContainsFunc(p.prose[:first.line], func(l string) bool { return strings.HasPrefix(l, "## ") })
}

// lesson returns the paragraph below the title, on one line.
func (p page) lesson() string {
	var words []string
	for _, line := range p.prose[1:] {
		if line == "" && len(words) > 0 {
			break
		}
		words = append(words, strings.Fields(line)...)
	}
	return strings.Join(words, " ")
}

func (c *check) headings(name string, p page, want ...string) {
	if got := p.headings(); !slices.Equal(got, want) {
		c.addf("%s: the headings are %q, want %q", name, got, want)
	}
}

// claims checks that every sentence has its test and every test its sentence.
func (c *check) claims(name string, section []numbered, tests []string) {
	var items []numbered
	for _, l := range section {
		switch {
		case strings.HasPrefix(l.text, "- "):
			items = append(items, l)
		case strings.HasPrefix(l.text, "  ") && len(items) > 0:
			items[len(items)-1].text += " " + strings.TrimSpace(l.text)
		default:
			c.addf("%s:%d: not an item of the list, so no test proves it", name, l.line)
		}
	}
	if len(items) == 0 {
		c.addf("%s: nothing is said to be true", name)
	}
	named := map[string]bool{}
	for _, item := range items {
		m := claim.FindStringSubmatch(item.text)
		if m == nil {
			c.addf("%s:%d: want the item to end with its tests: - It is so. `TestItIsSo`", name, item.line)
			continue
		}
		for _, t := range testName.FindAllStringSubmatch(m[1], -1) {
			named[t[1]] = true
			if !slices.Contains(tests, t[1]) {
				c.addf("%s:%d: there is no test %s", name, item.line, t[1])
			}
		}
	}
	for _, test := range tests {
		if !named[test] {
			c.addf("%s: no sentence names %s", name, test)
		}
	}
}

var (
	minutes = regexp.MustCompile(`\bAbout \d+ minutes\b`)
	hint    = regexp.MustCompile(`<details><summary>([^<]*)</summary>`)
)

func (c *check) exercisePage(name, text string) {
	p := parse(text)
	c.headings(name, p, "Task", "You are done when", "What the untouched check prints", "Hints")
	if !minutes.MatchString(strings.Join(p.prose, " ")) {
		c.addf("%s: want how long it takes: About 15 minutes", name)
	}
	var hints []string
	for _, m := range hint.FindAllStringSubmatch(text, -1) {
		hints = append(hints, m[1])
	}
	if !slices.Equal(hints, []string{"Hint 1", "Hint 2", "Hint 3"}) || strings.Count(text, "</details>") != 3 {
		c.addf("%s: want <details><summary>Hint N</summary>…</details> for 1, 2 and 3, found %q", name, hints)
	}
}
