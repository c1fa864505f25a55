package drsapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/drs"
)

// The simple shapes of the API that are bounded: each type knows its limits, for
// requests and for the OpenAPI document.
type (
	sourceServerID     string
	recoverySnapshotID string
	jobID              string
	recoveryInstanceID string
	ec2InstanceID      string
	accountID          string
	arn                string
	paginationToken    string
	boundedString      string // at most 256 characters
	smallBoundedString string // at most 128 characters
	timestamp          string // empty: not yet

	replicationTemplateID string
	launchTemplateID      string
	subnetID              string
	securityGroupID       string
	ec2InstanceType       string
)

func (sourceServerID) Schema(huma.Registry) *huma.Schema {
	return text(19, 19, `s-[0-9a-zA-Z]{17}`)
}

func (recoverySnapshotID) Schema(huma.Registry) *huma.Schema {
	return text(21, 21, `pit-[0-9a-zA-Z]{17}`)
}

func (jobID) Schema(huma.Registry) *huma.Schema {
	return text(24, 24, `drsjob-[0-9a-zA-Z]{17}`)
}

func (recoveryInstanceID) Schema(huma.Registry) *huma.Schema {
	return text(10, 19, `i-[0-9a-fA-F]{8,}`)
}

func (ec2InstanceID) Schema(huma.Registry) *huma.Schema {
	return text(0, 255, `i-[0-9a-fA-F]{8,}`)
}

func (accountID) Schema(huma.Registry) *huma.Schema {
	return text(12, 12, `.*[0-9]{12,}.*`)
}

func (arn) Schema(huma.Registry) *huma.Schema {
	// The model writes arn:.{16,2044}, a count that Go's regexp does not take; the
	// lengths say the same.
	return text(20, 2048, `arn:.+`)
}

func (replicationTemplateID) Schema(huma.Registry) *huma.Schema {
	return text(21, 21, `rct-[0-9a-zA-Z]{17}`)
}

func (launchTemplateID) Schema(huma.Registry) *huma.Schema {
	return text(21, 21, `lct-[0-9a-zA-Z]{17}`)
}

func (subnetID) Schema(huma.Registry) *huma.Schema {
	return text(0, 255, `subnet-[0-9a-fA-F]{8,}`)
}

func (securityGroupID) Schema(huma.Registry) *huma.Schema {
	return text(0, 255, `sg-[0-9a-fA-F]{8,}`)
}

func (ec2InstanceType) Schema(huma.Registry) *huma.Schema { return text(0, 255, "") }

func (paginationToken) Schema(huma.Registry) *huma.Schema    { return text(0, 2048, "") }
func (boundedString) Schema(huma.Registry) *huma.Schema      { return text(0, 256, "") }
func (smallBoundedString) Schema(huma.Registry) *huma.Schema { return text(0, 128, "") }

func (timestamp) Schema(huma.Registry) *huma.Schema {
	return text(19, 32, `[1-9][0-9]*-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([0-1][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?Z`)
}

func text(minLength, maxLength int, pattern string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, MinLength: &minLength, MaxLength: &maxLength}
	if pattern != "" {
		s.Pattern = "^(?:" + pattern + ")$"
	}
	return s
}

// timestampOf writes a moment as the service does, in milliseconds and UTC.
func timestampOf(t time.Time) timestamp {
	if t.IsZero() {
		return ""
	}
	return timestamp(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// time reads a timestamp of a request; the empty one is the zero time. The
// pattern lets through days that do not exist, which are refused here.
func (t timestamp) time(member string) (time.Time, error) {
	if t == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse("2006-01-02T15:04:05.999999999Z", string(t))
	if err != nil {
		return time.Time{}, invalidFields([]drs.FieldError{{
			Name:    member,
			Message: fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: Member must be a moment that exists", t, member),
		}})
	}
	return at, nil
}

// durationOf writes a span as an ISO 8601 duration of days, hours, minutes and
// seconds; none is P0D, and spans are never negative.
func durationOf(d time.Duration) string {
	d = d.Truncate(time.Microsecond)
	if d <= 0 {
		return "P0D"
	}
	var out strings.Builder
	out.WriteByte('P')
	if days := d / (24 * time.Hour); days > 0 {
		fmt.Fprintf(&out, "%dD", days)
		d -= days * 24 * time.Hour
	}
	if d == 0 {
		return out.String()
	}
	out.WriteByte('T')
	if hours := d / time.Hour; hours > 0 {
		fmt.Fprintf(&out, "%dH", hours)
		d -= hours * time.Hour
	}
	if minutes := d / time.Minute; minutes > 0 {
		fmt.Fprintf(&out, "%dM", minutes)
		d -= minutes * time.Minute
	}
	if d > 0 {
		out.WriteString(strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "S")
	}
	return out.String()
}

// derivedID makes a stable ID for a thing that has none of its own.
func derivedID(prefix string, digits int, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return prefix + hex.EncodeToString(sum[:])[:digits]
}

// clip shortens text to the most that a bounded string of a reply may hold.
func clip(s string, most int) string {
	n := 0
	for i := range s {
		if n == most {
			return s[:i]
		}
		n++
	}
	return s
}

const (
	boundedLength      = 256
	largeBoundedLength = 65536
)
