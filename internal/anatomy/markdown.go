package anatomy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/campoy/embedmd/embedmd"
)

// directive opens the line that says from which file the block below it comes.
const directive = "[embedmd]:#"

// Fresh returns doc as it reads when every block that an embedmd directive
// pulls in is taken from its file again.
func Fresh(fsys fs.FS, doc string) ([]byte, error) {
	text, err := fs.ReadFile(fsys, doc)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = embedmd.Process(&out, bytes.NewReader(text),
		embedmd.WithBaseDir(path.Dir(doc)), embedmd.WithFetcher(tree{fsys}))
	if err != nil {
		return nil, fmt.Errorf("%s: embedmd: line %w", doc, err)
	}
	return out.Bytes(), nil
}

// tree fetches from the workbook alone: embedmd's own fetcher also asks the
// network, on which no verdict may depend.
type tree struct{ fsys fs.FS }

func (t tree) Fetch(dir, name string) ([]byte, error) {
	if strings.Contains(name, "://") {
		return nil, errors.New("a block comes from a file of the workbook, not from the network")
	}
	return fs.ReadFile(t.fsys, path.Join(dir, name))
}

// A page is a Markdown text taken apart. Its lines keep their numbers: what
// is no prose (fenced blocks, directives) is blank in it.
type page struct {
	prose  []string
	fences []fence
}

type fence struct {
	line   int // of the opening fence, from 1
	info   string
	pulled bool // a directive stands on the line before it
}

func parse(text string) page {
	var p page
	fenced, before := false, ""
	for i, line := range strings.Split(text, "\n") {
		prose := ""
		switch {
		case strings.HasPrefix(line, "```"):
			if fenced = !fenced; fenced {
				pulled := strings.HasPrefix(before, directive)
				p.fences = append(p.fences, fence{i + 1, strings.TrimPrefix(line, "```"), pulled})
			}
		case !fenced && !strings.HasPrefix(line, directive):
			prose = line
		}
		p.prose = append(p.prose, prose)
		before = line
	}
	return p
}

// headings returns the titles of the second level, in order.
func (p page) headings() []string {
	var found []string
	for _, line := range p.prose {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			found = append(found, title)
		}
	}
	return found
}

// section returns the prose between the heading and the next one of its
// level, keyed by line number, blank lines left out.
func (p page) section(title string) []numbered {
	var found []numbered
	in := false
	for i, line := range p.prose {
		switch {
		case strings.HasPrefix(line, "## "):
			in = line == "## "+title
		case in && strings.TrimSpace(line) != "":
			found = append(found, numbered{i + 1, line})
		}
	}
	return found
}

type numbered struct {
	line int
	text string
}

var (
	codeSpan = regexp.MustCompile("`[^`]*`")
	link     = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	// These show code or output to a reader, and embedmd does not see them.
	foreignBlock = regexp.MustCompile("^(\\s+```|\\s*~~~|\\s*<pre)")
)

// doc checks what holds for every Markdown file: it is there, its blocks are
// fresh, their directives no part of a paragraph, and its relative links lead
// somewhere.
func (c *check) doc(name string) (text string, ok bool) {
	text, ok = c.read(name)
	if !ok {
		return "", false
	}
	if fresh, err := Fresh(c.fsys, name); err != nil {
		c.addf("%v", err)
	} else if text != string(fresh) {
		c.addf("%s: a block differs from its file: go test ./chapters -update", name)
	}
	prose := parse(text).prose
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, directive) && i > 0 && strings.TrimSpace(prose[i-1]) != "" {
			c.addf("%s:%d: want a blank line before the directive, or the page shows it", name, i+1)
		}
	}
	for i, line := range prose {
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, ":") {
				continue // within this page, or on the web
			}
			if _, err := fs.Stat(c.fsys, path.Join(path.Dir(name), target)); err != nil {
				c.addf("%s:%d: the link to %s leads nowhere", name, i+1, target)
			}
		}
	}
	return text, true
}
