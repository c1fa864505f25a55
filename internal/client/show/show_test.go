package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"lifeboat/internal/client"
)

var update = flag.Bool("update", false, "write what is shown into the golden files")

// now is the moment at which all golden files are shown, in a zone with a name.
var now = time.Date(2026, 3, 10, 14, 30, 0, 0, time.FixedZone("CET", 3600))

// TestGolden shows the JSON in each file of testdata and compares the text that
// stands beside it. The first part of the file's name says what it is.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) != 2 || archive.Files[0].Name != "input.json" || archive.Files[1].Name != "output.txt" {
				t.Fatal("want input.json and output.txt")
			}
			var out bytes.Buffer
			kind, _, _ := strings.Cut(name, "-")
			show(t, &Printer{W: &out, Now: now}, kind, archive.Files[0].Data)
			if *update {
				archive.Files[1].Data = out.Bytes()
				if err := os.WriteFile(path, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if got, want := out.String(), string(archive.Files[1].Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func show(t *testing.T, p *Printer, kind string, input []byte) {
	t.Helper()
	switch kind {
	case "servers":
		p.Servers(decode[[]client.Server](t, input))
	case "points":
		in := decode[struct {
			Server client.Server
			Points []client.Point
			More   bool
		}](t, input)
		p.Points(in.Server, in.Points, in.More)
	case "plan":
		p.Plan(decode[client.Plan](t, input))
	case "instances":
		p.Instances(decode[[]client.Instance](t, input))
	case "termination":
		p.Termination(decode[[]client.Instance](t, input))
	case "jobs":
		p.Jobs(decode[[]client.Job](t, input))
	case "job":
		p.Job(decode[client.Job](t, input))
	case "export":
		in := decode[struct {
			Server client.Server
			Point  client.Point
			Disk   int
			Output string
			Saved  client.Saved
		}](t, input)
		p.Exported(in.Server, in.Point, in.Disk, in.Output, in.Saved, 3210*time.Millisecond)
	default:
		t.Fatalf("nothing shows %s", kind)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
}

func decode[T any](t *testing.T, input []byte) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(input))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 999 * time.Millisecond: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min",
		time.Hour: "1 h", 72 * time.Minute: "1 h 12 min", 24 * time.Hour: "1 d", 50 * time.Hour: "2 d 2 h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
}

// TestForeignTextIsTamed: a hostname comes from a machine that may be hostile.
func TestForeignTextIsTamed(t *testing.T) {
	evil := "\x1b[2Jdb1\n\u202eok"
	var out bytes.Buffer
	p := &Printer{W: &out, Now: now}
	s := client.Server{Hostname: evil, ID: "s-1", Problem: &client.Problem{Code: "X", Message: evil}}
	p.Servers([]client.Server{s})
	p.Points(s, []client.Point{{ID: "pit-1"}}, true)
	p.Job(client.Job{Kind: evil, Servers: []client.JobServer{{Hostname: evil, Status: "FAILED", Error: evil}}, Log: []client.LogLine{{Event: evil, Server: "s-1", Hostname: evil, Note: evil, Error: evil}}})
	p.Plan(client.Plan{Servers: []client.PlannedServer{{Hostname: evil}}})
	p.Instances([]client.Instance{{Hostname: evil, State: evil}})
	if strings.ContainsAny(out.String(), "\x1b\u202e") || strings.Contains(out.String(), "db1\n") {
		t.Errorf("foreign text reaches the terminal as it is:\n%q", out.String())
	}
}

// TestLive holds what a watched job writes, with and without a terminal.
func TestLive(t *testing.T) {
	begun := now.Add(-3 * time.Second)
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		l := &Live{W: &out, Terminal: terminal, Now: func() time.Time { return now }}
		job := client.Job{Status: "STARTED", Started: &begun, Servers: []client.JobServer{{Status: "LAUNCHED"}, {Status: "IN_PROGRESS"}}}
		l.Line(client.LogLine{Time: now, Event: "JOB_START"})
		l.Progress(job)
		l.Away(errors.New("no route"))
		l.Back()
		l.Line(client.LogLine{Time: now, Event: "LAUNCH_START", Server: "s-1", Hostname: "db1"})
		l.Transfer(512<<20, 1<<30, 256<<20, 2*time.Second)
		job.Status = "COMPLETED"
		l.Progress(job)
		l.End()
		want := "14:30:00  the job begins\n" +
			"{/ 1 launched, 1 in progress after 3 s}" +
			"The server does not answer. Its jobs go on when it is back; still trying. (no route)\n" +
			"The server answers again.\n" +
			"14:30:00  db1: starting the machine\n" +
			"{- [###############...............]  50 % of 1.0 GiB, 128 MiB/s, 2 s left}"
		if terminal {
			want = strings.NewReplacer("{", clearLine, "}", clearLine).Replace(want)
		} else {
			want = want[:strings.Index(want, "{")] + want[strings.Index(want, "}")+1:strings.LastIndex(want, "{")]
		}
		if out.String() != want {
			t.Errorf("terminal %v:\ngot  %q\nwant %q", terminal, out.String(), want)
		}
	}
}

func TestWriteErrorEndsThePrinter(t *testing.T) {
	p := &Printer{W: full{}, Now: now}
	p.Servers([]client.Server{{Hostname: "db1"}})
	p.Jobs(nil)
	if !errors.Is(p.Err(), errFull) {
		t.Errorf("Err() = %v, want the first error of writing", p.Err())
	}
}

var errFull = errors.New("disk full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
