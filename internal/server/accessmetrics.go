package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// accessMetrics tells of calls held back and of what could not be recorded or
// delivered.
type accessMetrics struct{ s *running }

var (
	throttledMetric  = prometheus.NewDesc("lifeboat_throttled_requests_total", "Requests that came too fast, by operation.", []string{"operation"}, nil)
	auditLostMetric  = prometheus.NewDesc("lifeboat_audit_lost_total", "Calls that the audit log lacks.", nil, nil)
	deliveriesMetric = prometheus.NewDesc("lifeboat_webhook_deliveries", "Events that webhooks have not taken.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (m accessMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- throttledMetric
	out <- auditLostMetric
	out <- deliveriesMetric
}

// Collect implements prometheus.Collector.
func (m accessMetrics) Collect(out chan<- prometheus.Metric) {
	for operation, n := range m.s.throttle.Refused() {
		out <- prometheus.MustNewConstMetric(throttledMetric, prometheus.CounterValue, float64(n), operation)
	}
	out <- prometheus.MustNewConstMetric(auditLostMetric, prometheus.CounterValue, float64(m.s.audit.Lost()))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	waiting, dead, err := m.s.db.DeliveryCounts(ctx)
	if err != nil {
		m.s.Log.Warn("metrics are incomplete", "err", err)
		return
	}
	out <- prometheus.MustNewConstMetric(deliveriesMetric, prometheus.GaugeValue, float64(waiting), "waiting")
	out <- prometheus.MustNewConstMetric(deliveriesMetric, prometheus.GaugeValue, float64(dead), "dead")
}
