package workbook

import (
	"strings"
	"unicode"
)

// Sentence turns the name of a test into a sentence:
// "TestRecvReturnsEOFAfterTheLastEvent" into "Recv returns EOF after the last
// event". A subtest follows its test after a colon: "TestX/the_server_fails"
// into "X: the server fails".
func Sentence(test string) string {
	name, sub, isSub := strings.Cut(strings.TrimPrefix(test, "Test"), "/")
	words := split(name)
	for i, word := range words {
		if i > 0 && !keepsCase(word) {
			words[i] = strings.ToLower(word)
		}
	}
	sentence := strings.Join(words, " ")
	if isSub {
		sentence += ": " + strings.NewReplacer("_", " ", "/", ": ").Replace(sub)
	}
	return sentence
}

// terms returns the words of the field that are written in mixed case, and
// plurals of abbreviations, which would otherwise be cut before their last
// capital.
func terms() []string {
	return []string{
		"CloseAndRecv", "CloseSend", "SendAndClose", "SendMsg", "RecvMsg", "Recv", "Send",
		"GracefulStop", "NewStream", "GoAway",
		"InvalidArgument", "DeadlineExceeded", "ResourceExhausted", "FailedPrecondition",
		"Unavailable", "Unimplemented", "Unauthenticated", "PermissionDenied", "NotFound",
		"Unknown", "Internal", "Canceled", "Aborted", "OutOfRange", "DataLoss", "AlreadyExists",
		"UploadEvents", "Publish", "Watch", "Chat", "Ingest", "PutBlob",
		"ServeHTTP", "WithoutCancel", "WaitForHandlers", "WaitForReady", "AfterFunc", "RPCs", "MiB", "IDs", "ACKs", "PINGs",
	}
}

// split cuts a camel-case name into its words. A term of the field is one
// word, a run of capitals is one word, and digits belong to the run of
// capitals that they follow or else stand alone.
func split(name string) []string {
	var words []string
	for name != "" {
		n := len(wordAt(name))
		words = append(words, name[:n])
		name = name[n:]
	}
	return words
}

func wordAt(name string) string {
	longest := ""
	for _, term := range terms() {
		after, found := strings.CutPrefix(name, term)
		if found && len(term) > len(longest) && (after == "" || !unicode.IsLower(rune(after[0]))) {
			longest = term
		}
	}
	if longest != "" {
		return longest
	}
	upper := span(name, unicode.IsUpper)
	switch rest := name[upper:]; {
	case upper == 0:
		return name[:max(span(name, unicode.IsDigit), span(name, unicode.IsLower), 1)]
	case upper > 1 && rest != "" && unicode.IsLower(rune(rest[0])):
		return name[:upper-1] // the last capital begins the next word
	case upper > 1:
		return name[:upper+span(rest, unicode.IsDigit)] // HTTP2
	default:
		return name[:upper+span(rest, unicode.IsLower)]
	}
}

// span returns how many bytes at the front of s are in the class.
func span(s string, class func(rune) bool) int {
	n := strings.IndexFunc(s, func(r rune) bool { return !class(r) })
	if n < 0 {
		return len(s)
	}
	return n
}

func keepsCase(word string) bool {
	for _, term := range terms() {
		if word == term {
			return true
		}
	}
	return len(word) > 1 && strings.ToUpper(word) == word
}
