package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/replication"
)

// Metrics is what an agent tells those who watch it, as a collector of Prometheus. Make
// one with NewMetrics and give it to one agent. It is safe for concurrent use, and
// looking at it costs the agent nothing.
type Metrics struct {
	asOf      atomic.Int64 // Unix nanoseconds: the vault holds the disks of that moment; 0: not known
	connected atomic.Bool
	phase     atomic.Int32
	throttle  atomic.Uint32
	waited    atomic.Int64 // for credit, in nanoseconds
	held      atomic.Int64 // by the throttle, in nanoseconds

	sessions, breaks, refused, abandoned atomic.Int64
	points                               [replication.ConsistencyApplication + 1]atomic.Int64
	progress                             atomic.Int64 // epochs without a point
	packed                               [replication.CodecS2 + 1]atomic.Int64
	freezes                              prometheus.Histogram

	mu    sync.Mutex
	disks map[string]*diskMeter
}

// diskMeter counts what became of one disk, by its name.
type diskMeter struct {
	size, backlog, pending atomic.Int64
	read, changed, sent    atomic.Int64
	missed                 atomic.Int64 // by the tracker, as audits found
	mu                     sync.Mutex
	rescans                map[reason]int64
}

// reason is why a disk is read as a whole.
type reason string

const (
	nobodyTracked reason = "start"   // the agent has started, and nothing tracked the writes before
	vaultDiffers  reason = "vault"   // the vault holds what this agent does not know of
	trackerLost   reason = "tracker" // the tracker lost sight of the writes
	diskReturned  reason = "disk"    // a disk came, came back, grew, or could not be read
)

// NewMetrics returns the metrics of an agent that has done nothing yet.
func NewMetrics() *Metrics {
	return &Metrics{
		disks: map[string]*diskMeter{},
		freezes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lifeboat_agent_freeze_seconds", Help: "How long filesystems were frozen for a recovery point.",
			Buckets: []float64{.01, .025, .05, .1, .2, .4, .8, 1.6, 3.2},
		}),
	}
}

// disk is the meter of a disk of that name.
func (m *Metrics) disk(name string) *diskMeter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disks[name] == nil {
		m.disks[name] = &diskMeter{rescans: map[reason]int64{}}
	}
	return m.disks[name]
}

func (d *diskMeter) rescanned(why reason) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rescans[why]++
}

// holds notes that the vault holds the disks as they were at a moment. An earlier moment
// than before is news only where the one before was of a clock that ran ahead.
func (m *Metrics) holds(at time.Time) {
	m.mu.Lock() // the cutter tells it, and the report
	defer m.mu.Unlock()
	if before := m.asOf.Load(); !at.IsZero() && (at.UnixNano() > before || before > time.Now().UnixNano()) {
		m.asOf.Store(at.UnixNano())
	}
}

// look takes over how far a session is.
func (m *Metrics) look(p *replication.Progress, disks []*disk) {
	m.phase.Store(int32(p.Phase))
	for i, d := range disks[:min(len(disks), len(p.Disks))] {
		d.meter.backlog.Store(p.Disks[i].Backlog)
		if p.Phase == replication.PhaseScanning {
			d.meter.pending.Store(max(d.meter.size.Load()-p.Disks[i].Scanned, 0))
		} else {
			d.meter.pending.Store(0)
		}
	}
}

// attach gives each disk its meter. No pass may be running.
func (m *Metrics) attach(disks []*disk) {
	for _, d := range disks {
		d.meter = m.disk(d.name)
		d.meter.size.Store(d.size)
	}
}

// desc describes a metric; all begin with lifeboat_agent_.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lifeboat_agent_"+name, help, labels, nil)
}

var (
	connectedDesc = desc("connected", "1 while the agent has a session with its server.")
	phaseDesc     = desc("phase", "1 for what the agent is at.", "phase")
	lagDesc       = desc("lag_seconds", "Age of the moment up to which the vault holds everything, by this machine's clock; absent until there is one.")
	throttleDesc  = desc("throttle_mbps", "Bandwidth that the server's settings allow, in million bits per second; 0: all there is.")
	waitedDesc    = desc("credit_wait_seconds_total", "Time that what was to be sent waited for the server to take what had been.")
	heldDesc      = desc("throttle_wait_seconds_total", "Time that what was to be sent waited for the throttle.")
	sessionsDesc  = desc("sessions_total", "Sessions that the server has let the agent into; all but the first are reconnects.")
	breaksDesc    = desc("interruptions_total", "Sessions that broke, and attempts to connect that came to nothing.")
	epochsDesc    = desc("epochs_total", "Epochs that the server has acknowledged: recovery points by their consistency, and progress without one.", "kind")
	refusedDesc   = desc("epochs_refused_total", "Epochs that the vault could not take.")
	abandonedDesc = desc("freezes_abandoned_total", "Freezes that came to no recovery point.")
	packedDesc    = desc("chunks_sent_total", "Chunks sent, by how they were packed.", "codec")

	diskSizeDesc  = desc("disk_bytes", "Size of the disk.", "disk")
	backlogDesc   = desc("backlog_bytes", "Known to differ from the vault and not acknowledged.", "disk")
	pendingDesc   = desc("scan_pending_bytes", "Yet to be looked at by the scan under way.", "disk")
	readDesc      = desc("read_bytes_total", "Read from the disk.", "disk")
	unchangedDesc = desc("deduplicated_bytes_total", "Read and not sent: the vault holds them, or they are zeros.", "disk")
	sentDesc      = desc("sent_bytes_total", "Sent to the server, packed.", "disk")
	missedDesc    = desc("audit_missed_bytes_total", "Found by the audit to have changed without the tracker's notice, and sent.", "disk")
	rescansDesc   = desc("rescans_total", "Times that the whole disk had to be read, by reason: start, vault, tracker, disk.", "disk", "reason")
)

var phaseNames = map[replication.Phase]string{
	replication.PhaseScanning: "scanning", replication.PhaseContinuous: "continuous",
	replication.PhaseBacklog: "backlog", replication.PhaseStalled: "stalled",
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		connectedDesc, phaseDesc, lagDesc, throttleDesc, waitedDesc, heldDesc, sessionsDesc, breaksDesc, epochsDesc, refusedDesc, abandonedDesc, packedDesc,
		diskSizeDesc, backlogDesc, pendingDesc, readDesc, unchangedDesc, sentDesc, missedDesc, rescansDesc, m.freezes.Desc(),
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	connected := m.connected.Load()
	gauge(connectedDesc, flag(connected))
	for phase, name := range phaseNames {
		gauge(phaseDesc, flag(connected && replication.Phase(m.phase.Load()) == phase), name)
	}
	if at := m.asOf.Load(); at != 0 {
		gauge(lagDesc, max(time.Since(time.Unix(0, at)).Seconds(), 0))
	}
	gauge(throttleDesc, float64(m.throttle.Load()))
	out <- prometheus.MustNewConstMetric(waitedDesc, prometheus.CounterValue, time.Duration(m.waited.Load()).Seconds())
	out <- prometheus.MustNewConstMetric(heldDesc, prometheus.CounterValue, time.Duration(m.held.Load()).Seconds())
	count(sessionsDesc, m.sessions.Load())
	count(breaksDesc, m.breaks.Load())
	count(epochsDesc, m.progress.Load(), "progress")
	for consistency, name := range consistencyNames {
		count(epochsDesc, m.points[consistency].Load(), string(name))
	}
	count(refusedDesc, m.refused.Load())
	count(abandonedDesc, m.abandoned.Load())
	for codec, name := range []string{replication.CodecRaw: "none", replication.CodecZstd: "zstd", replication.CodecS2: "s2"} {
		count(packedDesc, m.packed[codec].Load(), name)
	}
	out <- m.freezes
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, d := range m.disks {
		d.collect(gauge, count, name)
	}
}

func (d *diskMeter) collect(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, int64, ...string), name string) {
	gauge(diskSizeDesc, float64(d.size.Load()), name)
	gauge(backlogDesc, float64(d.backlog.Load()), name)
	gauge(pendingDesc, float64(d.pending.Load()), name)
	changed := d.changed.Load() // before read, which is never less
	count(readDesc, d.read.Load(), name)
	count(unchangedDesc, max(d.read.Load()-changed, 0), name)
	count(sentDesc, d.sent.Load(), name)
	count(missedDesc, d.missed.Load(), name)
	d.mu.Lock()
	defer d.mu.Unlock()
	for why, n := range d.rescans {
		count(rescansDesc, n, name, string(why))
	}
}

func flag(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
