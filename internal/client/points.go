package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// Point is a moment of all disks of a server that can be launched.
type Point struct {
	ID     string `json:"id"`
	Server string `json:"server"`
	// Taken is the moment the disks are equal to.
	Taken time.Time `json:"taken"`
	// Consistency is crash, filesystem, application or fuzzy; empty when the server
	// does not say.
	Consistency string `json:"consistency,omitempty"`
	// Method is how that was made sure of: quiet-pass, frozen or none.
	Method string `json:"method,omitempty"`
	// FreezeMilliseconds is for how long the filesystems were held still for it.
	FreezeMilliseconds float64 `json:"freezeMilliseconds,omitempty"`
}

// Fuzzy points mix moments and are never chosen unless they are named.
func (p Point) Fuzzy() bool { return p.Consistency == "fuzzy" }

// PointQuery narrows a listing of points.
type PointQuery struct {
	Until *time.Time // points taken at or before it; nil: any
	Fuzzy bool       // list fuzzy points too
	Limit int        // at most so many; 0: all
}

// Points lists the recovery points of one server, newest first, and tells
// whether there are more than the limit.
func (c *Client) Points(ctx context.Context, server string, q PointQuery) (points []Point, more bool, err error) {
	points = []Point{}
	in := &drsapi.DescribeRecoverySnapshotsInput{
		SourceServerID: &server, Order: types.RecoverySnapshotsOrderDesc, MaxResults: aws.Int32(maxPage),
	}
	if q.Limit > 0 {
		in.MaxResults = aws.Int32(int32(min(q.Limit, maxPage)))
	}
	if q.Until != nil {
		in.Filters = &types.DescribeRecoverySnapshotsRequestFilters{
			ToDateTime: aws.String(q.Until.UTC().Format("2006-01-02T15:04:05.000000Z")),
		}
	}
	for {
		var reply []byte
		options := []func(*drsapi.Options){keepReply(&reply)}
		if q.Fuzzy {
			options = append(options, withFilter("includeFuzzy", true))
		}
		page, err := c.api.DescribeRecoverySnapshots(ctx, in, options...)
		if err != nil {
			return nil, false, c.explain(err)
		}
		extra := extras[struct {
			Consistency, Method string
			FreezeMilliseconds  float64
		}](reply)
		for n, s := range page.Items {
			p := Point{ID: deref(s.SnapshotID), Server: deref(s.SourceServerID)}
			if taken := timeOf(s.Timestamp); taken != nil {
				p.Taken = *taken
			} else {
				continue // asked for, not taken yet
			}
			if n < len(extra) {
				p.Consistency, p.Method, p.FreezeMilliseconds = extra[n].Consistency, extra[n].Method, extra[n].FreezeMilliseconds
			}
			points = append(points, p)
			if q.Limit > 0 && len(points) == q.Limit {
				return points, deref(page.NextToken) != "" || n+1 < len(page.Items), nil
			}
		}
		if deref(page.NextToken) == "" {
			return points, false, nil
		}
		in.NextToken = page.NextToken
	}
}

// maxPage is the most items that are asked for at once.
const maxPage = 1000

// NewestPoint returns the newest consistent point of the server, taken at or
// before until if that is given; *Refusal when there is none.
func (c *Client) NewestPoint(ctx context.Context, s Server, until *time.Time) (Point, error) {
	points, _, err := c.Points(ctx, s.ID, PointQuery{Until: until, Limit: 1})
	switch {
	case err != nil:
		return Point{}, err
	case len(points) == 1:
		return points[0], nil
	case until == nil:
		return Point{}, refuse("%s has no consistent recovery point yet; `lifeboat points %s --fuzzy` lists those that mix moments", s.Name(), s.Name())
	}
	return Point{}, refuse("%s has no consistent recovery point at or before %s; `lifeboat points %s` lists those it has",
		s.Name(), until.Format(time.RFC3339), s.Name())
}

// LatestPoint is the word for a server's newest consistent point, where a point
// is named.
const LatestPoint = "latest"

// FindPoint returns the point of the server that name means: an ID, the first
// part of one, or LatestPoint. Fuzzy points can be named too.
func (c *Client) FindPoint(ctx context.Context, s Server, name string) (Point, error) {
	if name == LatestPoint {
		return c.NewestPoint(ctx, s, nil)
	}
	points, _, err := c.Points(ctx, s.ID, PointQuery{Fuzzy: true})
	if err != nil {
		return Point{}, err
	}
	var found []Point
	for _, p := range points {
		if p.ID == name {
			return p, nil
		}
		if strings.HasPrefix(p.ID, name) && isPart(name, "pit-") {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return Point{}, refuse("%s has no recovery point %s; `lifeboat points %s` lists those it has", s.Name(), name, s.Name())
	case 1:
		return found[0], nil
	}
	var candidates []string
	for _, p := range found {
		candidates = append(candidates, fmt.Sprintf("%s (%s)", p.ID, p.Taken.Format(time.RFC3339)))
	}
	return Point{}, ambiguous("point", name, candidates)
}
