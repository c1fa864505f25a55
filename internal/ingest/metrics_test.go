package ingest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/source/agent"
)

// gather returns an agent's metrics by name and values of labels.
func gather(t *testing.T, m *agent.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			name := []string{strings.TrimPrefix(f.GetName(), "lifeboat_agent_")}
			for _, l := range metric.GetLabel() {
				if l.GetName() != "disk" {
					name = append(name, l.GetValue())
				}
			}
			values[strings.Join(name, " ")] += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return values
}

// The agent's metrics are of what it did: read, sent and left out, points made, breaks
// and refusals met.
func TestMetricsOfAnAgent(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, rng)
	cfg := r.config(t.TempDir(), disk)
	cfg.Metrics = agent.NewMetrics()
	want := func(what string, as map[string]float64) {
		t.Helper()
		got := gather(t, cfg.Metrics)
		for name, n := range as {
			if v, told := got[name]; v != n || !told {
				t.Errorf("%s: %s is %v (told: %v), want %v", what, name, v, told, n)
			}
		}
	}
	want("before the start", map[string]float64{"connected": 0, "sessions_total": 0, "epochs_total crash": 0})
	begun := time.Now()
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	r.takePoint(server)
	want("after the first point", map[string]float64{
		"connected": 1, "sessions_total": 1, "interruptions_total": 0, "disk_bytes": 16 << 20, "rescans_total start": 1,
		"epochs_refused_total": 0, "sent_bytes_total": float64(f.packed.Load()), "throttle_mbps": 0,
	})
	first := gather(t, cfg.Metrics)
	if read, left, sent := first["read_bytes_total"], first["deduplicated_bytes_total"], float64(f.blocks.Load())*4096; read-left != sent || left == 0 {
		t.Errorf("%v bytes read, %v of them not sent, and %v were", read, left, sent)
	}
	if n := first["chunks_sent_total none"] + first["chunks_sent_total s2"] + first["chunks_sent_total zstd"]; n != float64(f.frames.Load()) {
		t.Errorf("%v chunks by codec, %d came", n, f.frames.Load())
	}
	if lag, told := first["lag_seconds"]; !told || lag > time.Since(begun).Seconds() {
		t.Errorf("lag %v (told: %v), and the agent has run for %s", lag, told, time.Since(begun))
	}

	r.proxy.cut()
	r.proxy.mend()
	r.takePoint(server)
	f.set(nil, refuseAll)
	write(t, disk, []byte("more"), 5<<20)
	r.catalog.await(t, "the refusal", func() bool { return r.catalog.info[server].Error != nil })
	f.set(nil, nil)
	r.takePoint(server)
	last := gather(t, cfg.Metrics)
	if last["sessions_total"] != 2 || last["interruptions_total"] < 1 || last["epochs_refused_total"] < 1 || last["epochs_total crash"] <= first["epochs_total crash"] {
		names := slices.Sorted(maps.Keys(last))
		for _, n := range names {
			t.Logf("%s %v", n, last[n])
		}
		t.Error("a break, a refusal and another point are not among the metrics")
	}
}
