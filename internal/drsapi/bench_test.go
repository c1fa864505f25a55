package drsapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// BenchmarkStartRecovery200 is one request for 200 servers up to its answer,
// with the job in the database.
func BenchmarkStartRecovery200(b *testing.B) {
	s := newSite(b)
	var servers []string
	for i := range 200 {
		servers = append(servers, `{"sourceServerID":"`+string(s.addServer(home, fmt.Sprint("web", i)).ID)+`"}`)
	}
	benchmark(b, s, "/StartRecovery", `{"sourceServers":[`+strings.Join(servers, ",")+`]}`, http.StatusAccepted)
}

// BenchmarkDescribeSourceServers is one page of 200 servers.
func BenchmarkDescribeSourceServers(b *testing.B) {
	s := newSite(b)
	for i := range 200 {
		s.addServer(home, fmt.Sprint("web", i))
	}
	benchmark(b, s, "/DescribeSourceServers", `{}`, http.StatusOK)
}

// BenchmarkDescribeRecoverySnapshots is the newest page of 10,000 points.
func BenchmarkDescribeRecoverySnapshots(b *testing.B) {
	s := newSite(b)
	server := s.addServer(home, "web1")
	points := make([]drs.RecoveryPoint, 10_000)
	for i := range points {
		at := time.Unix(1_700_000_000+int64(5*i), 0)
		points[i] = drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server.ID, Expected: at, Taken: at,
			Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: uint64(i + 1),
		}
	}
	if err := s.db.ReplacePoints(b.Context(), server.ID, points); err != nil {
		b.Fatal(err)
	}
	benchmark(b, s, "/DescribeRecoverySnapshots", `{"sourceServerID":"`+string(server.ID)+`","order":"DESC"}`, http.StatusOK)
}

func benchmark(b *testing.B, s *site, target, body string, want int) {
	s.api.Verifier = trusting{s.keys[home]}
	for b.Loop() {
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, httptest.NewRequest("POST", target, strings.NewReader(body)))
		if w.Code != want {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}
