package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/s3"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// answer is an error as S3 words it.
func answer(status int, code string) s3test.Intercept {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>as the test wants it</Message></Error>", code)
		}
	}
}

// cut breaks the connection before the request reaches the server.
func cut(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// loseAnswer lets the server do it and breaks the connection then.
func loseAnswer(_ http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// cutBody answers half of what the server answers.
func cutBody(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// stall never answers.
func stall(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client is gone
	<-r.Context().Done()
}

// firstTimes makes each request fail so often before it passes.
func firstTimes(n int, fault s3test.Intercept) (s3test.Intercept, *atomic.Int64) {
	var mu sync.Mutex
	seen := map[string]int{}
	hits := new(atomic.Int64)
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		key := r.Method + r.URL.String()
		mu.Lock()
		seen[key]++
		fails := seen[key] <= n
		mu.Unlock()
		if fails {
			hits.Add(1)
			fault(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}, hits
}

// TestPassingFaultsAreBorne: whatever breaks for a while, every operation ends as if
// nothing had been.
func TestPassingFaultsAreBorne(t *testing.T) {
	server := s3test.Start(t)
	for name, fault := range map[string]s3test.Intercept{
		"500": answer(500, "InternalError"), "503": answer(503, "SlowDown"), "429": answer(429, "TooManyRequests"),
		"409": answer(409, "ConditionalRequestConflict"), "400 time-out": func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodHead { // its answer has no body to say so
				answer(500, "")(w, r, next)
				return
			}
			answer(400, "RequestTimeout")(w, r, next)
		},
		"gateway page": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>bad gateway</html>")
		},
		"cut": cut, "lost answer": loseAnswer, "cut body": cutBody, "stall": stall,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, server.Location(), s3.Options{Patience: 300 * time.Millisecond, Delay: time.Millisecond})
			around, hits := firstTimes(1, fault)
			server.Around(around)
			defer server.Around(nil)
			big := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
			if err := s.PutIfAbsent(t.Context(), "a/b", big[:1000], big[1000:]); err != nil {
				t.Errorf("put: %v", err)
			}
			p := make([]byte, len(big))
			if n, err := s.ReadAt(t.Context(), "a/b", p, 0); n != len(p) || err != nil || !bytes.Equal(p, big) {
				t.Errorf("read: %d bytes, %v", n, err)
			}
			if n, err := s.Size(t.Context(), "a/b"); n != int64(len(big)) || err != nil {
				t.Errorf("size: %d, %v", n, err)
			}
			if names, err := s.List(t.Context(), "a/"); len(names) != 1 || err != nil {
				t.Errorf("list: %v, %v", names, err)
			}
			if err := s.Delete(t.Context(), "a/b"); err != nil {
				t.Errorf("delete: %v", err)
			}
			if _, err := s.Size(t.Context(), "a/b"); !errors.Is(err, blob.ErrAbsent) {
				t.Errorf("size after delete: %v", err)
			}
			if hits.Load() < 4 {
				t.Errorf("only %d faults: the test does not reach what it should", hits.Load())
			}
		})
	}
}

func open(t *testing.T, l s3.Location, opt s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), l, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestLastingFaultsAreNotAbsence: a store that stays unwell is ErrUnreachable, after
// a bounded number of requests, and never absence, damage or a taken name.
func TestLastingFaultsAreNotAbsence(t *testing.T) {
	server := s3test.Start(t)
	s := server.Bucket()
	put(t, s, "there", "content")
	for name, fault := range map[string]s3test.Intercept{"503": answer(503, "SlowDown"), "cut": cut} {
		var requests atomic.Int64
		server.Around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			requests.Add(1)
			fault(w, r, next)
		})
		_, readErr := s.ReadAt(t.Context(), "there", make([]byte, 1), 0)
		_, sizeErr := s.Size(t.Context(), "there")
		_, listErr := s.List(t.Context(), "")
		for op, err := range map[string]error{
			"read": readErr, "size": sizeErr, "list": listErr,
			"put": s.PutIfAbsent(t.Context(), "new", nil), "delete": s.Delete(t.Context(), "there"),
		} {
			var corrupt *blob.CorruptError
			if !errors.Is(err, s3.ErrUnreachable) || errors.Is(err, blob.ErrAbsent) || errors.Is(err, blob.ErrExists) || errors.As(err, &corrupt) {
				t.Errorf("%s: %s: got %v, want ErrUnreachable alone", name, op, err)
			}
		}
		if n := requests.Load(); n > 60 {
			t.Errorf("%s: %d requests for five operations", name, n)
		}
		server.Around(nil)
	}
	if n, err := s.Size(t.Context(), "there"); n != 7 || err != nil {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

func put(t *testing.T, s blob.Store, name, content string) {
	t.Helper()
	if err := s.PutIfAbsent(t.Context(), name, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// TestLostAnswersAreSettled: whoever stored the object is told so, whatever became of
// the answers, and nobody else is.
func TestLostAnswersAreSettled(t *testing.T) {
	server := s3test.Start(t)
	s := server.Bucket()
	onPut := func(fault s3test.Intercept) s3test.Intercept {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPut {
				fault(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	server.Around(onPut(loseAnswer)) // of each attempt
	put(t, s, "mine", "first")
	if err := s.PutIfAbsent(t.Context(), "mine", []byte("first")); !errors.Is(err, blob.ErrExists) && !errors.Is(err, s3.ErrUnreachable) {
		t.Errorf("a second put of the same bytes: %v; it did not store them", err)
	}
	server.Around(onPut(cut)) // nothing arrives
	if err := s.PutIfAbsent(t.Context(), "never", []byte("x")); !errors.Is(err, s3.ErrUnreachable) {
		t.Errorf("a put that never arrived: %v", err)
	}

	lossy, _ := firstTimes(1, loseAnswer)
	var turn atomic.Int64
	server.Around(onPut(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if turn.Add(1)%2 == 0 {
			lossy(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}))
	for round := range 20 {
		name := fmt.Sprintf("race-%d", round)
		var won atomic.Int64
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				content := fmt.Sprintf("writer %d", i)
				switch err := s.PutIfAbsent(t.Context(), name, []byte(content)); {
				case err == nil:
					won.Add(1)
					winner.Store(content)
				case !errors.Is(err, blob.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%s: %d writers were told that they made it", name, won.Load())
		}
		if got := string(s.Bytes(name)); got != winner.Load() {
			t.Fatalf("%s holds %q, the winner wrote %q", name, got, winner.Load())
		}
	}
}

// TestPartsBelongToTheCallerAgain: nobody reads them after PutIfAbsent returned, even
// when the store answered early. The race detector sees it otherwise.
func TestPartsBelongToTheCallerAgain(t *testing.T) {
	server := s3test.Start(t)
	s := server.Bucket()
	server.Around(answer(503, "SlowDown")) // without reading the body
	part := make([]byte, 4<<20)
	if err := s.PutIfAbsent(t.Context(), "x", part); !errors.Is(err, s3.ErrUnreachable) {
		t.Fatal(err)
	}
	for i := range part {
		part[i] = 1
	}
}
