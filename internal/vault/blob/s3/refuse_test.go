package s3_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/s3"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// change rewrites the server's answers.
func change(f func(r *http.Request, rec *httptest.ResponseRecorder)) s3test.Intercept {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		f(r, rec)
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}
}

// TestStoresThatCannotFenceAreRefused: each lacks one thing that a vault relies on.
func TestStoresThatCannotFenceAreRefused(t *testing.T) {
	server := s3test.Start(t)
	isPut := func(r *http.Request) bool { return r.Method == http.MethodPut }
	for name, c := range map[string]struct {
		around s3test.Intercept
		want   string
	}{
		"replaces": {change(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if isPut(r) && rec.Code == 412 {
				rec.Code = 200
			}
		}), "replace"},
		"answers 304": {change(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if isPut(r) && rec.Code == 412 {
				rec.Code = 304
				rec.Body.Reset()
			}
		}), ""},
		"looks, then creates": {change(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if isPut(r) && rec.Code == 412 && strings.Contains(r.URL.Path, "raced") {
				rec.Code = 200
			}
		}), "at once"},
		"does not know the condition": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if isPut(r) {
				answer(501, "NotImplemented")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		}, "conditional create is refused"},
		"forgets metadata": {change(func(_ *http.Request, rec *httptest.ResponseRecorder) {
			rec.Header().Del("X-Amz-Meta-Lifeboat-Put")
		}), "metadata"},
		"stale lists": {change(func(r *http.Request, rec *httptest.ResponseRecorder) {
			if strings.Contains(r.URL.RawQuery, "lifeboat-probe") {
				text := rec.Body.String()
				if i, j := strings.Index(text, "<Contents>"), strings.Index(text, "</Contents>"); i >= 0 {
					rec.Body.Reset()
					rec.Body.WriteString(text[:i] + text[j+len("</Contents>"):])
				}
			}
		}), "listing"},
	} {
		l := server.Location()
		server.Around(c.around)
		_, err := s3.Open(t.Context(), l, s3test.Patient)
		server.Around(nil)
		if !errors.Is(err, s3.ErrCannotFence) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want ErrCannotFence about %q", name, err, c.want)
		}
	}
}

// TestARangeIgnoredIsNoData: bytes from elsewhere in the object are never returned.
func TestARangeIgnoredIsNoData(t *testing.T) {
	server := s3test.Start(t)
	s := server.Bucket()
	put(t, s, "x", "0123456789")
	server.Around(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT")
		_, _ = w.Write([]byte("0123456789"))
	})
	p := make([]byte, 4)
	if n, err := s.ReadAt(t.Context(), "x", p, 3); err == nil || n != 0 {
		t.Errorf("read %q, %v", p[:n], err)
	}
	if n, err := s.ReadAt(t.Context(), "x", p, 0); string(p[:n]) != "0123" || err != nil {
		t.Errorf("from the begin: %q, %v", p[:n], err)
	}
}

// TestWhatIsWrongIsSaid: every mistake of set-up gets an error of its own kind that
// tells the next step.
func TestWhatIsWrongIsSaid(t *testing.T) {
	server := s3test.Start(t)
	l := server.Location()
	opened := open(t, l, s3test.Patient)
	put(t, opened, "x", "content")

	t.Run("wrong keys", func(t *testing.T) {
		for name, value := range map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong", "AWS_ACCESS_KEY_ID": "nobody"} {
			t.Run(name, func(t *testing.T) {
				t.Setenv(name, value)
				_, err := s3.Open(t.Context(), l, s3test.Patient)
				wantError(t, err, s3.ErrCredentials, "AWS_ACCESS_KEY_ID")
				if strings.Contains(err.Error(), "wrong") && strings.Contains(err.Error(), "Secret") {
					t.Errorf("the message shows a secret: %v", err)
				}
			})
		}
	})
	t.Run("no keys", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		_, err := s3.Open(t.Context(), l, s3test.Patient)
		wantError(t, err, s3.ErrCredentials, "~/.aws/credentials")
	})
	t.Run("profile", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "credentials")
		text := "[vault]\naws_access_key_id=" + s3test.AccessKey + "\naws_secret_access_key=" + s3test.SecretKey + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		with := l
		with.Profile = "vault"
		s := open(t, with, s3test.Patient)
		if strings.Contains(s.String()+s.CredentialsFrom(), s3test.SecretKey) {
			t.Errorf("a secret is shown: %s, %s", s, s.CredentialsFrom())
		}
		with.Profile = "other"
		_, err := s3.Open(t.Context(), with, s3test.Patient)
		wantError(t, err, nil, "other")
	})
	t.Run("no bucket", func(t *testing.T) {
		_, err := s3.Open(t.Context(), server.At("nowhere"), s3test.Patient)
		wantError(t, err, nil, "create it")
	})
	t.Run("clock", func(t *testing.T) {
		server.Around(answer(403, "RequestTimeTooSkewed"))
		defer server.Around(nil)
		_, err := opened.Size(t.Context(), "x")
		if err == nil || errors.Is(err, blob.ErrAbsent) {
			t.Fatal(err)
		}
		_, err = opened.List(t.Context(), "")
		wantError(t, err, nil, "clock")
	})
	t.Run("full", func(t *testing.T) {
		server.Around(answer(507, "QuotaExceeded"))
		defer server.Around(nil)
		wantError(t, opened.PutIfAbsent(t.Context(), "y", nil), blob.ErrNoSpace, "free")
	})
	t.Run("read-only", func(t *testing.T) {
		server.Stop()
		server.Run("--readonly")
		wantError(t, opened.PutIfAbsent(t.Context(), "y", nil), blob.ErrReadOnly, "allow")
		wantError(t, opened.Delete(t.Context(), "x"), blob.ErrReadOnly, "allow")
		_, err := s3.Open(t.Context(), l, s3test.Patient)
		wantError(t, err, blob.ErrReadOnly, "allow")
		reader := open(t, l, s3.Options{ReadOnly: true})
		if n, err := reader.Size(t.Context(), "x"); n != 7 || err != nil {
			t.Errorf("read what is there: %d, %v", n, err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		server.Stop()
		_, err := s3.Open(t.Context(), l, s3test.Patient)
		wantError(t, err, s3.ErrUnreachable, "")
		server.Run()
		if n, err := opened.Size(t.Context(), "x"); n != 7 || err != nil {
			t.Errorf("after it came back: %d, %v", n, err)
		}
	})
}

func TestBucketThatVanishesIsNotAbsence(t *testing.T) {
	server := s3test.Start(t)
	s := server.Bucket()
	s.Drop()
	for range 2 {
		_, err := s.Size(t.Context(), "x")
		if err == nil || errors.Is(err, blob.ErrAbsent) {
			t.Errorf("size: %v", err)
		}
		_, err = s.ReadAt(t.Context(), "x", make([]byte, 1), 0)
		if err == nil || errors.Is(err, blob.ErrAbsent) {
			t.Errorf("read: %v", err)
		}
		if _, err := s.List(t.Context(), ""); err == nil {
			t.Error("list: want an error")
		}
	}
}

func TestUnknownAuthority(t *testing.T) {
	server := s3test.StartTLS(t)
	l := server.Location()
	open(t, l, s3test.Patient)
	t.Run("not named", func(t *testing.T) {
		without := l
		without.CACert = ""
		_, err := s3.Open(t.Context(), without, s3test.Patient)
		wantError(t, err, nil, "ca-cert=FILE")
		t.Setenv("AWS_CA_BUNDLE", l.CACert)
		open(t, without, s3test.Patient)
	})
	t.Run("not a certificate", func(t *testing.T) {
		wrong := l
		wrong.CACert = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(wrong.CACert, []byte("no"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s3.Open(t.Context(), wrong, s3test.Patient)
		wantError(t, err, nil, "no PEM certificate")
	})
	t.Run("no TLS", func(t *testing.T) {
		plain := s3test.Start(t).Location()
		plain.Endpoint = strings.Replace(plain.Endpoint, "http:", "https:", 1)
		_, err := s3.Open(t.Context(), plain, s3test.Patient)
		wantError(t, err, nil, "http://")
	})
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want kind %v that says %q", err, kind, text)
	}
}
