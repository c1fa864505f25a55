package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
)

// A machine launched with the disposition STOPPED waits for its first start, and
// keeps its disk over power off and on.
func TestPowerAndConsole(t *testing.T) {
	in := install(t)
	image, content := knownImage(t)
	agent, server := in.startAgent(t, image, "--hostname", "harbour")
	agent.kill()
	_, err := in.drs.UpdateLaunchConfiguration(t.Context(), &drs.UpdateLaunchConfigurationInput{
		SourceServerID: aws.String(server), LaunchDisposition: types.LaunchDispositionStopped,
	})
	if err != nil {
		t.Fatal(err)
	}
	instance := in.launched(t, in.recover(t, server, true))
	if len(in.machines(t)) != 0 {
		t.Error("a machine that was to be stopped runs")
	}
	if _, errs, code := lifeboat(t, in.env, "console", instance); code != 3 || !strings.Contains(errs, "not started yet") {
		t.Errorf("console of a machine that never ran: exit %d: %s", code, errs)
	}

	must := func(args ...string) string {
		t.Helper()
		out, errs, code := lifeboat(t, in.env, args...)
		if code != 0 {
			t.Fatalf("lifeboat %s: exit %d: %s", strings.Join(args, " "), code, errs)
		}
		return out
	}
	if out := must("start", "harbour"); !strings.Contains(out, instance) {
		t.Errorf("lifeboat start printed %s", out)
	}
	console := in.console(t, instance)
	first := see(t, console, 0, guest.Booted)
	see(t, console, first.Next, regexp.MustCompile(regexp.QuoteMeta(content)))
	must("start", instance) // it runs already
	if out := must("console", instance); !strings.Contains(out, content) {
		t.Errorf("lifeboat console printed %q", out)
	}
	must("stop", instance)
	if len(in.machines(t)) != 0 {
		t.Error("a stopped machine runs")
	}
	must("start", instance)
	second := see(t, console, first.Next, guest.Booted)
	see(t, console, second.Next, regexp.MustCompile(regexp.QuoteMeta(content)))
}
