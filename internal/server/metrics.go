package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// newMetrics registers what /metrics tells: this process, and the state of every
// source server and recovery instance as the tables have it.
func newMetrics(d *db.DB, log *slog.Logger) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&domainMetrics{d, log},
	)
	return r
}

// domainMetrics reads the tables at each scrape, so that nothing has to be kept
// in step with them.
type domainMetrics struct {
	db  *db.DB
	log *slog.Logger
}

var (
	serversMetric = prometheus.NewDesc("lifeboat_source_servers", "Source servers by replication state.", []string{"state"}, nil)
	lagMetric     = prometheus.NewDesc("lifeboat_replication_lag_seconds",
		"Age of the moment up to which the vault holds everything.", []string{"source_server", "hostname"}, nil)
	backlogMetric = prometheus.NewDesc("lifeboat_replication_backlog_bytes", "Bytes not yet in the vault.", []string{"source_server", "hostname"}, nil)
	stateMetric   = prometheus.NewDesc("lifeboat_replication_state",
		"1 for the state that a source server is in.", []string{"source_server", "hostname", "state"}, nil)
	errorMetric = prometheus.NewDesc("lifeboat_replication_error",
		"1 for the error that keeps a source server from being replicated.", []string{"source_server", "hostname", "error"}, nil)
	pointsMetric = prometheus.NewDesc("lifeboat_recovery_points", "Recovery points that are kept.", []string{"source_server", "hostname"}, nil)
	newestMetric = prometheus.NewDesc("lifeboat_newest_point_age_seconds",
		"Age of the newest recovery point that a launch would choose by itself.", []string{"source_server", "hostname"}, nil)
	instancesMetric = prometheus.NewDesc("lifeboat_recovery_instances", "Recovery instances by state.", []string{"state"}, nil)
)

func (m *domainMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

func (m *domainMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	servers, err := m.db.AllServers(ctx)
	if err != nil {
		m.log.Warn("metrics are incomplete", "err", err)
		return
	}
	totals, err := m.db.PointTotals(ctx)
	if err != nil {
		m.log.Warn("metrics are incomplete", "err", err)
	}
	states := map[drs.ReplicationState]int{}
	for _, s := range servers {
		states[s.Replication.State]++
		var backlog int64
		for _, disk := range s.Replication.Disks {
			backlog += disk.Backlogged
		}
		labels := []string{string(s.ID), s.Properties.Hostname}
		out <- prometheus.MustNewConstMetric(stateMetric, prometheus.GaugeValue, 1, append(labels, string(s.Replication.State))...)
		if e := s.Replication.Error; e != nil {
			out <- prometheus.MustNewConstMetric(errorMetric, prometheus.GaugeValue, 1, append(labels, string(e.Code))...)
		}
		if total, known := totals[s.ID]; known {
			out <- prometheus.MustNewConstMetric(pointsMetric, prometheus.GaugeValue, float64(total.Points), labels...)
			if !total.Newest.IsZero() {
				out <- prometheus.MustNewConstMetric(newestMetric, prometheus.GaugeValue, max(0, time.Since(total.Newest).Seconds()), labels...)
			}
		}
		out <- prometheus.MustNewConstMetric(backlogMetric, prometheus.GaugeValue, float64(backlog), labels...)
		if as := s.Replication.AsOf; !as.IsZero() {
			out <- prometheus.MustNewConstMetric(lagMetric, prometheus.GaugeValue, max(0, time.Since(as).Seconds()), labels...)
		}
	}
	for state, n := range states {
		out <- prometheus.MustNewConstMetric(serversMetric, prometheus.GaugeValue, float64(n), string(state))
	}
	instances, err := m.db.AllInstances(ctx)
	if err != nil {
		m.log.Warn("metrics are incomplete", "err", err)
		return
	}
	running := map[drs.InstanceState]int{}
	for _, i := range instances {
		running[i.State]++
	}
	for state, n := range running {
		out <- prometheus.MustNewConstMetric(instancesMetric, prometheus.GaugeValue, float64(n), string(state))
	}
}
