//go:build !unix

package workbook

import (
	"os/exec"
	"strconv"
)

// ownGroup makes cancelling the command end the test binaries below the go
// command too. Windows has no process groups like those of Unix; its taskkill
// knows the tree of processes.
func ownGroup(cmd *exec.Cmd) (sweep func()) {
	cmd.Cancel = func() error {
		_ = exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid)).Run()
		return cmd.Process.Kill()
	}
	return func() {}
}
