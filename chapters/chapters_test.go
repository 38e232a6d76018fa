// Package chapters_test holds every chapter against its anatomy. The rules,
// and the proof that each of them can fail, are in internal/anatomy.
package chapters_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"example.com/mygrpc/internal/anatomy"
)

const root = ".."

var update = flag.Bool("update", false, "take the blocks of every README from their files again")

func TestWorkbook(t *testing.T) {
	fsys := os.DirFS(root)
	if *update {
		updateDocs(t, fsys)
	}
	for _, complaint := range anatomy.Workbook(fsys) {
		t.Error(complaint)
	}
	for _, name := range anatomy.Chapters(fsys) {
		t.Run(name, func(t *testing.T) {
			for _, complaint := range anatomy.Chapter(fsys, name) {
				t.Error(complaint)
			}
		})
	}
}

// updateDocs changes pulled blocks and nothing else.
func updateDocs(t *testing.T, fsys fs.FS) {
	for _, doc := range anatomy.Docs(fsys) {
		fresh, err := anatomy.Fresh(fsys, doc)
		if err != nil {
			t.Error(err)
			continue
		}
		old, err := fs.ReadFile(fsys, doc)
		if err != nil {
			t.Error(err)
			continue
		}
		if bytes.Equal(old, fresh) {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(doc)), fresh, 0o644); err != nil {
			t.Error(err)
		}
		t.Logf("rewrote %s", doc)
	}
}
