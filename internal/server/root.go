package server

import (
	_ "embed"
	"net/http"
)

//go:embed root.html
var rootPage []byte

// root tells whoever opens the address in a browser what it is. It asks for
// nothing from elsewhere.
func root(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(rootPage) // a client that left needs no answer
}
