package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/client"
)

// Jobs shows jobs, newest first.
func (p *Printer) Jobs(jobs []client.Job) {
	if len(jobs) == 0 {
		p.printf("No jobs yet. `lifeboat recover SERVER --drill` starts one.\n")
		return
	}
	rows := make([][]string, 0, len(jobs))
	for _, j := range jobs {
		rows = append(rows, []string{serverNames(j), j.Kind, status(j), p.ago(j.Started), p.took(j), j.ID})
	}
	p.table([]string{"SERVERS", "KIND", "STATUS", "STARTED", "TOOK", "ID"}, rows)
}

// serverNames lists a job's servers, but not very many.
func serverNames(j client.Job) string {
	const most = 3
	var names []string
	for _, s := range j.Servers {
		if name := nameOf(s.Hostname, s.Server); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most-1], ", "), len(names)-most+1)
	}
	return strings.Join(names, ", ")
}

func nameOf(hostname, id string) string {
	if hostname != "" {
		return hostname
	}
	return id
}

// status says how a job stands.
func status(j client.Job) string {
	failed, all := j.Failed(), len(j.Servers)
	switch {
	case failed > 0 && failed == all:
		return "FAILED"
	case failed > 0:
		return fmt.Sprintf("%d of %d FAILED", failed, all)
	case j.Done():
		return "done"
	case j.Status == "PENDING":
		return "waiting"
	}
	return "running"
}

func (p *Printer) took(j client.Job) string {
	if j.Started == nil || j.Ended == nil {
		return ""
	}
	return short(j.Ended.Sub(*j.Started))
}

// Job shows one job and its log.
func (p *Printer) Job(j client.Job) {
	p.printf("%s %s: %s, started %s\n\n", capital(clean(j.Kind)), j.ID, status(j), p.ago(j.Started))
	for _, line := range j.Log {
		p.Line(line)
	}
	if len(j.Log) > 0 {
		p.printf("\n")
	}
	p.Result(j)
}

// Result shows what became of each server of a job, and of those that failed why
// and what to do.
func (p *Printer) Result(j client.Job) {
	header := []string{"SERVER", "RESULT", "INSTANCE"}
	if j.Kind != client.KindTerminate {
		header = append(header, "STATE", "DATA AS OF ("+p.zone()+")", "AGE AT START")
	}
	rows := make([][]string, 0, len(j.Servers))
	for _, s := range j.Servers {
		row := []string{nameOf(s.Hostname, s.Server), launchStatus(s.Status), s.Instance}
		if j.Kind != client.KindTerminate {
			row = append(row, lower(s.InstanceState), p.moment(s.PointTaken), ageAtStart(s.PointTaken, machineStart(j, s)))
		}
		rows = append(rows, row)
	}
	p.table(header, rows)
	for _, s := range j.Servers {
		if s.Status != "FAILED" {
			continue
		}
		name, why := clean(nameOf(s.Hostname, s.Server)), s.Error
		if why == "" {
			why = "the server gave no reason; its log may"
		}
		p.printf("\n%s failed: %s\n", name, sentence(clean(why)))
		if j.Kind != client.KindTerminate {
			p.printf("To try an earlier moment: `lifeboat points %s`, then `lifeboat recover %s --point P`.\n", name, name)
		}
	}
}

// machineStart is when a server's machine was started, by the job's log; nil: not
// yet, or the log is not there.
func machineStart(j client.Job, s client.JobServer) (at *time.Time) {
	for n, l := range j.Log {
		if l.Event == "LAUNCH_START" && l.Server == s.Server {
			at = &j.Log[n].Time
		}
	}
	return at
}

// ageAtStart is how old a server's data was when its machine started: what was
// written in that time is not in it.
func ageAtStart(taken, started *time.Time) string {
	if taken == nil || started == nil {
		return ""
	}
	return Duration(started.Sub(*taken))
}

func launchStatus(s string) string {
	switch s {
	case "FAILED":
		return s // to be seen
	case "PENDING":
		return "waiting"
	}
	return lower(s)
}

// eventWords say what the events of a job's log mean.
var eventWords = map[string]string{
	"JOB_START":                      "the job begins",
	"SERVER_SKIPPED":                 "skipped",
	"CLEANUP_START":                  "removing the earlier instance",
	"CLEANUP_END":                    "earlier instance removed",
	"CLEANUP_FAIL":                   "the earlier instance could not be removed",
	"SNAPSHOT_START":                 "taking a recovery point",
	"SNAPSHOT_END":                   "recovery point taken",
	"SNAPSHOT_FAIL":                  "no point of now can be taken",
	"USING_PREVIOUS_SNAPSHOT":        "starting from a kept recovery point",
	"USING_PREVIOUS_SNAPSHOT_FAILED": "no recovery point can be used",
	"CONVERSION_START":               "making the disks bootable",
	"CONVERSION_END":                 "disks are bootable",
	"CONVERSION_FAIL":                "the disks cannot be made bootable",
	"LAUNCH_START":                   "starting the machine",
	"LAUNCH_FAILED":                  "the machine did not start",
	"JOB_CANCEL":                     "the job was cancelled",
	"JOB_END":                        "the job has ended",
}

// Line shows one line of a job's log.
func (p *Printer) Line(l client.LogLine) {
	words, ok := eventWords[l.Event]
	if !ok {
		words = lower(l.Event)
	}
	if l.Event == "CLEANUP_START" || l.Event == "CLEANUP_END" {
		if l.Instance != "" {
			words = strings.Replace(words, "the earlier instance", l.Instance, 1)
			words = strings.Replace(words, "earlier instance", l.Instance, 1)
		}
	}
	if l.Server != "" {
		words = nameOf(l.Hostname, l.Server) + ": " + words
	}
	if l.Note != "" {
		words += " (" + l.Note + ")"
	}
	if l.Error != "" {
		words += ": " + l.Error
	}
	p.printf("%s  %s\n", l.Time.In(p.Now.Location()).Format("15:04:05"), clean(words))
}

// Accepted shows a job that was started and is not waited for.
func (p *Printer) Accepted(j client.Job) {
	p.printf("Started %s job %s of %s. `lifeboat job %s` follows it.\n", clean(j.Kind), j.ID, count(len(j.Servers), "server"), j.ID)
}
