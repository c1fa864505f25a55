package drs

import "fmt"

// PITRule keeps one recovery point per interval for a while.
type PITRule struct {
	ID        int64    `json:"id"`
	Units     PITUnits `json:"units"`
	Interval  int64    `json:"interval"`
	Retention int64    `json:"retention"` // in Units
	Enabled   bool     `json:"enabled"`
}

// PITUnits is the unit of a rule's interval and retention.
type PITUnits string

const (
	PITMinute PITUnits = "MINUTE"
	PITHour   PITUnits = "HOUR"
	PITDay    PITUnits = "DAY"
)

// DefaultPITPolicy keeps a point each 10 minutes for an hour, each hour for a
// day, each day for a week.
func DefaultPITPolicy() []PITRule {
	return []PITRule{
		{ID: 1, Units: PITMinute, Interval: 10, Retention: 60, Enabled: true},
		{ID: 2, Units: PITHour, Interval: 1, Retention: 24, Enabled: true},
		{ID: 3, Units: PITDay, Interval: 1, Retention: 7, Enabled: true},
	}
}

// MaxPITDays is the longest that daily points are kept.
const MaxPITDays = 365

// CheckPITPolicy holds a policy to the only form that the service allows: one
// rule per unit, the first two as they are by default, and daily points kept for
// 1 to 365 days. It returns the policy with the IDs of its rules, in the order in
// which they came, and refuses with a *Error whose field is pitPolicy. Among the
// given rules an ID of 0 means that none was given.
func CheckPITPolicy(rules []PITRule) ([]PITRule, error) {
	const field = "pitPolicy"
	fixed := map[PITUnits]PITRule{}
	for _, r := range DefaultPITPolicy() {
		fixed[r.Units] = r
	}
	if len(rules) != len(fixed) {
		return nil, Invalid(field, "A PIT policy has exactly %d rules, one for each of MINUTE, HOUR and DAY; the request has %d.", len(fixed), len(rules))
	}
	out := make([]PITRule, 0, len(rules))
	for i, r := range rules {
		at := fmt.Sprintf("%s[%d]", field, i)
		want, ok := fixed[r.Units]
		if !ok {
			return nil, Invalid(at, "A PIT policy has one rule for each of MINUTE, HOUR and DAY; the request has %s twice.", r.Units)
		}
		delete(fixed, r.Units)
		switch {
		case r.ID != 0 && r.ID != want.ID:
			return nil, Invalid(at+".ruleID", "The rule for %s has the ID %d.", r.Units, want.ID)
		case r.Interval != want.Interval:
			return nil, Invalid(at+".interval", "The interval of the rule for %s is fixed at %d.", r.Units, want.Interval)
		case !r.Enabled:
			return nil, Invalid(at+".enabled", "The rule for %s cannot be switched off.", r.Units)
		case r.Units == PITDay && r.Retention >= 1 && r.Retention <= MaxPITDays:
			want.Retention = r.Retention
		case r.Units == PITDay:
			return nil, Invalid(at+".retentionDuration", "Daily recovery snapshots are kept for 1 to %d days.", MaxPITDays)
		case r.Retention != want.Retention:
			return nil, Invalid(at+".retentionDuration", "The retention of the rule for %s is fixed at %d.", r.Units, want.Retention)
		}
		out = append(out, want)
	}
	return out, nil
}
