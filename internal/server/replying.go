package server

import (
	"net/http"
	"strings"
	"time"
)

// replyTime is how long a client may take to read a reply of an API; what streams
// for as long as it takes must get on within that time.
const replyTime = time.Minute

// bounded lets no client hold a reply, and what it is made of, by not reading it.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &reply{ResponseWriter: w, control: http.NewResponseController(w), streams: strings.HasPrefix(r.URL.Path, "/lifeboat/")}
		out.extend() // the deadline of the connection's last reply may have passed
		next.ServeHTTP(out, r)
		if !out.begun || out.streams {
			out.extend() // for what net/http still holds
		}
	})
}

// reply moves the connection's deadline for writing.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	streams bool
	begun   bool
}

func (w *reply) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(replyTime)) // a connection that cannot have one is none of a network
}

func (w *reply) Write(p []byte) (int, error) {
	if !w.begun || w.streams {
		w.begun = true
		w.extend()
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController through.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }
