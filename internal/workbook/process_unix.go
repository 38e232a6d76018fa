//go:build unix

package workbook

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the command and all that it starts into a process group, so
// that cancelling it reaches the test binaries below the go command too. They
// are interrupted, not killed: the go command then removes its temporary
// files. The function that it returns kills what is left of the group.
func ownGroup(cmd *exec.Cmd) (sweep func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	return func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
