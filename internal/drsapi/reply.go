package drsapi

import (
	"bufio"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
)

// sendBuffer is how much of a reply in pieces is handed over at a time: large enough
// that TLS fills its records.
const sendBuffer = 64 << 10

var sendBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, sendBuffer) }}

// writeBody sends a reply, which has no body when there are no pieces.
func writeBody(w http.ResponseWriter, log *slog.Logger, status int, pieces ...[]byte) {
	length := 0
	for _, piece := range pieces {
		length += len(piece)
	}
	if len(pieces) > 0 {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(status)
	if err := send(w, pieces); err != nil {
		log.Debug("client went away", "error", err)
	}
}

func send(w io.Writer, pieces [][]byte) error {
	if len(pieces) <= 1 {
		for _, piece := range pieces {
			_, err := w.Write(piece)
			return err
		}
		return nil
	}
	buffer, _ := sendBuffers.Get().(*bufio.Writer)
	buffer.Reset(w)
	defer func() {
		buffer.Reset(nil)
		sendBuffers.Put(buffer)
	}()
	for _, piece := range pieces {
		if _, err := buffer.Write(piece); err != nil {
			return err
		}
	}
	return buffer.Flush()
}
