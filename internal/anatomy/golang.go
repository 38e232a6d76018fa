package anatomy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strconv"
	"strings"
)

// goFile parses name. Its positions in fset begin with name.
func (c *check) goFile(name string) (*token.FileSet, *ast.File) {
	text, ok := c.read(name)
	if !ok {
		return nil, nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
	if err != nil {
		c.addf("%v", err)
		return nil, nil
	}
	return fset, file
}

// program checks a main.go, which people copy to work: it stands on public
// packages alone, listens on loopback alone and uses nothing deprecated.
func (c *check) program(name string) *ast.File {
	fset, file := c.goFile(name)
	if file == nil {
		return nil
	}
	if file.Name.Name != "main" {
		c.addf("%s: package %s, want main", name, file.Name.Name)
	}
	for _, spec := range file.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); !allowed(p) {
			c.addf("%v: imports %s, which a reader cannot take along", fset.Position(spec.Pos()), p)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if s := types.ExprString(n); slices.Contains([]string{"grpc.Dial", "grpc.DialContext", "grpc.WithBlock"}, s) {
				c.addf("%v: %s is deprecated: use grpc.NewClient", fset.Position(n.Pos()), s)
			}
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, "Listen") && !onLoopback(sel, n.Args) {
				c.addf(`%v: want Listen("tcp", "127.0.0.1:…"), address as a literal`, fset.Position(n.Pos()))
			}
		}
		return true
	})
	return file
}

func allowed(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	if !strings.Contains(first, ".") {
		return true // the standard library
	}
	for _, module := range []string{"google.golang.org/grpc", "google.golang.org/protobuf", "go.uber.org/goleak", "example.com/mygrpc/gen"} {
		if importPath == module || strings.HasPrefix(importPath, module+"/") {
			return true
		}
	}
	return importPath == "golang.org/x/sync/errgroup"
}

// onLoopback accepts Listen of net and of a net.ListenConfig, and bufconn's,
// which opens no port.
func onLoopback(sel *ast.SelectorExpr, args []ast.Expr) bool {
	if x, ok := sel.X.(*ast.Ident); ok && x.Name == "bufconn" {
		return true
	}
	if sel.Sel.Name != "Listen" || len(args) == 0 {
		return false
	}
	lit, ok := args[len(args)-1].(*ast.BasicLit)
	return ok && strings.HasPrefix(lit.Value, `"127.0.0.1:`)
}

const runFunc = "func(ctx context.Context, w io.Writer, pace time.Duration) error"

// hasRun reports whether the file has the run that main and the test call.
func hasRun(file *ast.File) bool {
	return slices.ContainsFunc(file.Decls, func(decl ast.Decl) bool {
		f, ok := decl.(*ast.FuncDecl)
		return ok && f.Recv == nil && f.Name.Name == "run" && types.ExprString(f.Type) == runFunc
	})
}

// callsRun reports whether the file calls run or hands it to what does, such
// as lab.EndsWell(t, run).
func callsRun(file *ast.File) bool {
	isRun := func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && id.Name == "run"
	}
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			found = found || isRun(call.Fun) || slices.ContainsFunc(call.Args, isRun)
		}
		return !found
	})
	return found
}

// tests returns the names of the test functions in dir.
func (c *check) tests(dir string) []string {
	var found []string
	for _, name := range c.glob(path.Join(dir, "*_test.go")) {
		_, file := c.goFile(name)
		if file == nil {
			continue
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				found = append(found, f.Name.Name)
			}
		}
	}
	return found
}

// noSkips checks a test file for calls of Skip: a skipped proof proves
// nothing. It reads the syntax, so a string that says t.Skip() is none. The
// lab's own tests skip a lab (l) to see that it refuses.
func (c *check) noSkips(name string) {
	fset, file := c.goFile(name)
	if file == nil {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			return true
		}
		if path.Dir(name) != "internal/lab" || types.ExprString(sel.X) != "l" {
			c.addf("%v: a test must not skip", fset.Position(sel.Pos()))
		}
		return true
	})
}
