package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/durable"
)

// verdictFile keeps what the last probe found, so that the first recovery after
// a restart need not wait for the next one. It holds no promise: a missing or
// damaged one is probed anew.
const verdictFile = "accelerator.json"

// verdict is what a probe found, and what it holds for.
type verdict struct {
	Boot    string    `json:"boot"`    // the host's boot
	Program string    `json:"program"` // the emulator, with its size and age
	At      time.Time `json:"at"`
	KVM     bool      `json:"kvm"`
	Note    string    `json:"note,omitempty"` // why not
}

// doubtAfter is when a verdict against virtualization is looked at again: an
// overloaded host may have earned it wrongly.
const doubtAfter = time.Hour

// provisionalAfter is how long a machine's start may wait for the probe. A guest
// that works is done in a third of a second.
const provisionalAfter = 1500 * time.Millisecond

// remembered returns the verdict on this boot of the host and this emulator; fresh
// tells that it needs no other probe.
func remembered(dir, program string) (a accelerator, known, fresh bool) {
	text, err := os.ReadFile(filepath.Join(dir, verdictFile))
	if err != nil {
		return a, false, false
	}
	var v verdict
	if json.Unmarshal(text, &v) != nil || v.Boot != bootID() || v.Boot == "" || v.Program != programID(program) {
		return a, false, false
	}
	if v.KVM {
		if _, err := os.Stat("/dev/kvm"); err != nil {
			return a, false, false
		}
		return kvm, true, true
	}
	a = emulation("")
	a.note = v.Note
	age := time.Since(v.At)
	return a, true, age >= 0 && age < doubtAfter
}

// remember keeps a verdict for the next start.
func remember(dir, program string, a accelerator) error {
	text, err := json.Marshal(verdict{
		Boot: bootID(), Program: programID(program), At: time.Now().UTC(), KVM: a.name == kvm.name, Note: a.note,
	})
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("accelerator verdict", filepath.Join(dir, verdictFile), text, 0o600)
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // none: nothing is remembered
	return strings.TrimSpace(string(text))
}

// programID tells one build of the emulator from another; empty when it is absent.
func programID(program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano())
}

// findAccelerator settles what executes guests: at once when it is remembered, and
// else by a probe.
func (d *Driver) findAccelerator() {
	if d.cfg.Emulate {
		a := emulation("")
		a.note = ""
		d.settle(a)
		return
	}
	a, known, fresh := remembered(d.cfg.Dir, d.cfg.Program)
	if known {
		d.settle(a)
		d.cfg.Log.Info("accelerator remembered", "accelerator", a.name, "note", a.note)
	}
	if fresh {
		return
	}
	if !known {
		// A recovery waits this long for the probe and no longer; a later verdict holds
		// for the machines that start after it.
		provisional := time.AfterFunc(provisionalAfter, func() {
			a := emulation("a test guest under /dev/kvm is not done yet")
			if d.accel.CompareAndSwap(nil, &a) {
				close(d.probed)
			}
		})
		defer provisional.Stop()
	}
	a = probeKVM(d.ctx, d.cfg.Program)
	d.settle(a)
	if d.ctx.Err() != nil || programID(d.cfg.Program) == "" {
		return // nothing was found out
	}
	d.cfg.Log.Info("accelerator probed", "accelerator", a.name, "note", a.note)
	if err := remember(d.cfg.Dir, d.cfg.Program, a); err != nil {
		d.cfg.Log.Warn("accelerator is probed again at the next start", "err", err)
	}
}

// settle sets what machines that start from now on are executed by.
func (d *Driver) settle(a accelerator) {
	if d.accel.Swap(&a) == nil {
		close(d.probed)
	}
}
