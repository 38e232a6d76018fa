package workbook

import (
	"slices"
	"strings"
	"testing"
)

func TestSentenceReadsAsASentence(t *testing.T) {
	for test, want := range map[string]string{
		"TestReceiptCountsWhatWasInserted":         "Receipt counts what was inserted",
		"TestRecvReturnsEOFAfterTheLastEvent":      "Recv returns EOF after the last event",
		"TestAnInvalidTopicIsInvalidArgument":      "An invalid topic is InvalidArgument",
		"TestCloseSendEndsWhatCloseAndRecvWaitsOn": "CloseSend ends what CloseAndRecv waits on",
		"TestSendsAreCounted":                      "Sends are counted",
		"TestAnRPCOverTCPIsOK":                     "An RPC over TCP is OK",
		"TestEveryIDIsItsOwn":                      "Every ID is its own",
		"TestNoneOfTheRPCsLeaks":                   "None of the RPCs leaks",
		"TestHandlerOutlivesACancelledClient":      "Handler outlives a cancelled client",
		"TestKeeps100EventsOverHTTP2Frames":        "Keeps 100 events over HTTP2 frames",
		"TestUpload/the_server_fails":              "Upload: the server fails",
		"TestUpload/the_server_fails/late":         "Upload: the server fails: late",
	} {
		if got := Sentence(test); got != want {
			t.Errorf("Sentence(%q) = %q, wanted %q", test, got, want)
		}
	}
}

func TestFindTakesNumberNameAndPath(t *testing.T) {
	list := []Exercise{{Name: "01-unary"}, {Name: "03-client-streaming"}, {Name: "13-unary"}, {Name: "30-cursor"}}
	for arg, want := range map[string]string{
		"03":                               "03-client-streaming",
		"3":                                "03-client-streaming",
		"client-streaming":                 "03-client-streaming",
		"03-client-streaming":              "03-client-streaming",
		"exercises/03-client-streaming":    "03-client-streaming",
		"./exercises/03-client-streaming/": "03-client-streaming",
		"../03-client-streaming":           "03-client-streaming",
		"30":                               "30-cursor",
		"31":                               `no exercise "31"; there are: 01-unary, 03-client-streaming, 13-unary, 30-cursor`,
		"client":                           `no exercise "client"; there are: 01-unary, 03-client-streaming, 13-unary, 30-cursor`,
		"unary":                            `"unary" names several exercises: 01-unary, 13-unary`,
	} {
		e, err := Find(list, arg)
		got := e.Name
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Find(%q) gives\n%s\nwanted\n%s", arg, got, want)
		}
	}
}

func TestRootIsFoundFromBelow(t *testing.T) {
	root := t.TempDir()
	write(t, root, "go.mod", "// the module\nmodule "+Module+"\n")
	write(t, root, "exercises/01-unary/go.mod", "module example.com/other\n")
	got, err := Root(root + "/exercises/01-unary")
	if err != nil || got != root {
		t.Errorf("Root gives %q and the error %v, wanted %q", got, err, root)
	}
	outside := t.TempDir()
	if _, err := Root(outside); err == nil || !strings.Contains(err.Error(), outside) {
		t.Errorf("Root outside of the module gives the error %v, wanted one that names %s", err, outside)
	}
}

func TestExercisesAreTheNumberedFolders(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"10-ten/answer.go", "02-two/answer.go", "main.go", "03-file", "x-y/answer.go", "testdata/a"} {
		write(t, root, "exercises/"+file, "")
	}
	list, err := Exercises(root)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(list), "02-two, 10-ten"; got != want {
		t.Errorf("the exercises are %s, wanted %s", got, want)
	}
}

func TestUntouchedComparesWithTheStarter(t *testing.T) {
	root := t.TempDir()
	e := Exercise{Root: root, Name: "01-unary"}
	if _, err := e.Untouched(); err == nil {
		t.Error("a missing starter is no error")
	}
	write(t, root, "solutions/01-unary/testdata/starter.go", "package main\n\nfunc f() {}\n")
	if got, err := e.Untouched(); err != nil || got {
		t.Errorf("Untouched without answer.go is %v with the error %v, wanted false", got, err)
	}
	for answer, want := range map[string]bool{
		"package main\n\nfunc f() {}\n":       true,
		"package main\r\n\r\nfunc f() {}\r\n": true,
		"package main\n\nfunc f() { }\n":      false,
	} {
		write(t, root, e.Answer(), answer)
		if got, err := e.Untouched(); err != nil || got != want {
			t.Errorf("Untouched of %q is %v with the error %v, wanted %v", answer, got, err, want)
		}
	}
}

func TestHintsAreTheFoldedBlocks(t *testing.T) {
	root := t.TempDir()
	e := Exercise{Root: root, Name: "01-unary"}
	write(t, root, "exercises/01-unary/README.md", `# 01

<details><summary>Hint 1</summary>

Look at the deadline.

`+"```go\nctx, cancel := f()\n```"+`

</details>
<details>
<summary>Hint 2</summary>
More.
</details>

The end.
`)
	got, err := e.Hints()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Look at the deadline.\n\n```go\nctx, cancel := f()\n```", "More."}
	if !slices.Equal(got, want) {
		t.Errorf("the hints are\n%q\nwanted\n%q", got, want)
	}
	write(t, root, "exercises/01-unary/README.md", "<summary>Hint 1</summary>\nopen\n")
	if _, err := e.Hints(); err == nil {
		t.Error("a hint that is never closed is no error")
	}
}
