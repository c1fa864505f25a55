package freeze

// BetweenFreezes has f called once, before the second of several filesystems is frozen.
func (g *Guard) BetweenFreezes(f func()) { g.between = f }
