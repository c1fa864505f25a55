package drsapi

import "context"

// initializeService makes the account ready; again changes nothing.
func (c caller) initializeService(ctx context.Context, _ *nothing) (*nothing, error) {
	return nil, c.DB.Initialize(ctx, c.account)
}
