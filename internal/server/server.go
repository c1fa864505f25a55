// Package server is where the wings meet: it opens the data directory, wires
// vault, tables, replication, recovery and API together, and runs them until it
// is told to stop.
//
// Everything a server must not lose is on disk before it is promised to anybody,
// so a stop is a kill with better manners: machines keep running and find their
// disks again after the next start.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"lifeboat/internal/audit"
	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/events"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
	"lifeboat/internal/iamapi"
	"lifeboat/internal/ingest"
	"lifeboat/internal/protection"
	"lifeboat/internal/recovery"
	"lifeboat/internal/recovery/convert"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/recovery/machine/qemu"
	"lifeboat/internal/recovery/plan"
	"lifeboat/internal/server/export"
	"lifeboat/internal/throttle"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/cached"
)

// running is a server with all its parts.
type running struct {
	Config
	dir          *DataDir
	journal      time.Duration
	db           *db.DB
	store        vaultStore
	watch        *storeWatch   // what store is read and written by
	cache        *cached.Cache // of a store that is far; nil: there is none
	vault        *vault.Vault
	recorder     *recorder
	scrubber     *scrubber
	upkeep       *upkeep
	ownership    atomic.Pointer[vault.Ownership] // nil while the vault cannot be written
	machines     *qemu.Driver
	recovery     *recovery.Service
	plans        *plan.Service
	ingest       *ingest.Server
	protection   *protection.Service
	api          *drsapi.API
	registration http.Handler
	export       http.Handler
	instances    http.Handler
	vaultWork    http.Handler
	templates    http.Handler
	diskAccess   http.Handler
	limits       limits
	audit        *audit.Log
	directory    *directory.Directory
	throttle     *throttle.Throttle
	replays      *iam.Replays
	gate         *gate
	iam          *iamapi.Handler
	webhookBox   *iam.Box
	certificates *iam.CertKeeper
	events       *events.Dispatcher
	disks        *disks // of recovery points, over the network; nil unless asked for
	metrics      *prometheus.Registry
}

// Run serves until ctx ends, which is no error.
func Run(ctx context.Context, c Config) (err error) {
	if err := c.Check(); err != nil {
		return err
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return err
	}
	first, err := c.first()
	if err != nil {
		return err
	}
	dir, created, err := openDataDir(ctx, c.Data, first)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := c.agree(dir); err != nil {
		return err
	}
	if created {
		c.Log.Info("made a new data directory", "path", c.Data, "account", dir.Settings.Account, "region", dir.Settings.Region)
	}
	s := &running{Config: c, dir: dir}
	if s.journal, err = dir.keepJournal(c.Journal); err != nil {
		return err
	}
	if dir.Settings.Installation == "" { // made by an earlier version
		dir.Settings.Installation = rand.Text()
	}
	if s.Listen == "" {
		s.Listen = or(dir.Settings.Listen, DefaultListen)
	}
	if s.ReplicationListen == "" {
		s.ReplicationListen = or(dir.Settings.Replication, DefaultReplication)
	}
	return s.run(ctx)
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func (s *running) run(ctx context.Context) (err error) {
	// The ports come first: a busy one is the likeliest mistake.
	apiListener, err := listen(ctx, s.Listen, "--listen")
	if err != nil {
		return err
	}
	defer func() { _ = apiListener.Close() }() // a server that got so far has closed it
	agentListener, err := listen(ctx, s.ReplicationListen, "--replication-listen")
	if err != nil {
		return err
	}
	defer func() { _ = agentListener.Close() }() // likewise
	if s.disks, err = s.listenDisks(ctx); err != nil {
		return err
	}
	listeners := []net.Listener{apiListener, agentListener}
	if s.disks != nil {
		defer func() { _ = s.disks.listener.Close() }() // likewise
		listeners = append(listeners, s.disks.listener)
	}
	s.dir.Settings.Listen, s.dir.Settings.Replication = apiListener.Addr().String(), agentListener.Addr().String()
	if err := s.dir.writeSettings(); err != nil {
		return err
	}

	if err := s.openStores(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.closeStores()) }()
	s.certificates, err = s.dir.Authority.KeepServerCertificate(s.dir.Path, hosts(listeners...), s.Log)
	if err != nil {
		return err
	}
	if err := s.wire(ctx, agentListener.Addr().String()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.replays.Close()) }()

	api := s.httpServer()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { shrink(ctx); return nil })
	group.Go(func() error { return s.keepOwnership(ctx) })
	group.Go(func() error { return s.recorder.run(ctx) })
	keeper := &installationKeeper{dir: s.dir, db: s.db, vault: s.vault, mayPut: s.mayRecord, log: s.Log.With("wing", "vault")}
	group.Go(func() error { return keeper.run(ctx) })
	group.Go(func() error { return s.scrubber.run(ctx) })
	group.Go(func() error { return s.certificates.Run(ctx) })
	group.Go(func() error { return s.audit.Run(ctx) })
	group.Go(func() error { return s.upkeep.run(ctx) })
	group.Go(func() error { return s.events.Run(ctx) })
	group.Go(func() error { return s.recovery.Run(ctx) })
	group.Go(func() error { return s.plans.Run(ctx) })
	group.Go(func() error { return s.protection.Run(ctx) })
	group.Go(func() error { return s.ingest.Serve(ctx, agentListener) })
	if s.disks != nil {
		group.Go(func() error { return s.serveDisks(ctx, s.disks) })
	}
	group.Go(func() error {
		crowd := newCrowd(apiListener, maxConnections)
		api.ConnState = crowd.state
		err := api.Serve(tls.NewListener(crowd, s.certificates.Serve(apiTLS())))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve the API: %w", err)
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := api.Shutdown(stop); err != nil {
			return errors.Join(api.Close())
		}
		return nil
	})
	s.Log.Info("server is ready", "api", "https://"+apiListener.Addr().String(), "replication", agentListener.Addr().String(),
		"data", s.dir.Path, "version", s.Version)
	err = group.Wait()
	s.Log.Info("server has stopped; machines that it launched run on")
	return err
}

// openStores opens vault and tables, and makes the catalogue of recovery points
// equal to what the vault holds: a commit may have been the last thing that a
// killed server did.
func (s *running) openStores(ctx context.Context) (err error) {
	if s.db, err = db.Open(ctx, s.dir.databasePath()); err != nil {
		return fmt.Errorf("%w. Restore the database from a copy; or make it again from the vault with `lifeboat vault rebuild --data %s`", err, s.dir.Path)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.db.Close())
		}
	}()
	store, err := s.dir.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	s.store, s.watch = store, watchStore(store, "")
	if !s.dir.vaultInBucket() {
		s.watch.path = s.dir.vaultPath()
	}
	opt, err := s.vaultOptions(store)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && s.cache != nil {
			err = errors.Join(err, s.cache.Close())
		}
	}()
	if s.vault, err = vault.Open(ctx, s.watch, s.dir.keys, opt); err != nil {
		return fmt.Errorf("open the vault %s: %w", s.dir.Settings.Vault, s.dir.explainKey(ctx, store, err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.vault.Close())
		}
	}()
	if s.dir.changing() {
		s.Log.Warn("a change of the master key was cut short: stop the server and run `lifeboat vault rotate-key` again", "data", s.dir.Path)
	}
	if err := s.own(ctx); err != nil {
		return err
	}
	if err := s.refuseOldDatabase(ctx); err != nil {
		return err
	}
	s.recorder = newRecorder(s.db, s.vault, s.dir.file(instancesDir), s.Log.With("wing", "vault"))
	s.recorder.mayPut = s.mayRecord
	return s.catalogPoints(ctx)
}

func (s *running) closeStores() error {
	return errors.Join(s.closeVault(), s.db.Close())
}

// catalogPoints lists the vault's points in the tables.
func (s *running) catalogPoints(ctx context.Context) error {
	servers, err := s.db.AllServers(ctx)
	if err != nil {
		return err
	}
	for _, server := range servers {
		if server.Replication.State.Ended() {
			continue // it has none, and what the vault still holds of it will be deleted
		}
		points, err := s.vault.Points(ctx, server.ID)
		if err != nil {
			// One damaged server must not keep the others from being recovered, and what
			// the tables list of it stays listed: opening it tells what is wrong.
			s.Log.Error("recovery points of a server cannot be read", "server", server.ID, "err", err)
			continue
		}
		if err := s.db.ReplacePoints(ctx, server.ID, points); err != nil {
			return err
		}
	}
	return nil
}

// wire makes the parts know each other.
func (s *running) wire(ctx context.Context, replication string) (err error) {
	if err := errors.Join(s.openAccess(), s.openEvents()); err != nil {
		return err
	}
	tokens, err := s.dir.InstallTokens()
	if err != nil {
		return err
	}
	s.upkeep = newUpkeep(s)
	catalog := catalog{s.db, s.dir.Account().Region, s.Epoch, s.upkeep.committed, s.limits.quotasOf}
	s.ingest = ingest.New(ingest.Config{
		Vault: ingest.OnVault(s.vault), Catalog: catalog,
		TLS:     s.certificates.Serve(s.dir.Authority.AgentTLS(s.certificates.Certificate())),
		Revoked: revoked(s.db), Renew: s.renew,
		Identify: func(chain []*x509.Certificate) (string, drs.SourceServerID, error) {
			agent, err := s.dir.Authority.VerifyAgent(chain)
			return agent.Account, agent.SourceServer, err
		},
		Software: "lifeboat/" + s.Version, Logger: s.Log.With("wing", "ingest"),
	})
	if err := catalog.expect(ctx, s.ingest); err != nil {
		return err
	}
	s.protection = protection.New(protection.Config{
		DB: s.db, Agents: protectedAgents{s.ingest, catalog}, Vault: protectedVault{s.vault, s.recorder}, Trusts: s.trusts, Quotas: s.limits.quotasOf, Log: s.Log.With("wing", "protection"),
	})
	s.registration = ingest.Registrar{
		CheckToken: tokens.Check,
		Register:   catalog.register(s.ingest.Connected, tokens.Issued, s.protection.Retry),
		CreateServer: func(ctx context.Context, server drs.SourceServerID) error {
			if err := (protectedVault{s.vault, s.recorder}).CreateServer(ctx, server); err != nil {
				return err
			}
			return s.recorder.keep(ctx, server)
		},
		IssueAgent: s.issueAgent,
		Throttle:   func(account drs.Account) error { return throttled(s.throttle)(account, besidePrefix+"RegisterAgent") },
		Record:     s.recordRegistration,
		CA:         s.dir.Authority.CertPEM(), Address: advertised(replication), Logger: s.Log.With("wing", "ingest"),
	}

	// The driver tells of machines only after Run has begun, when recovery is set.
	s.machines, err = qemu.New(qemu.Config{
		Dir: s.dir.file(instancesDir), Log: s.Log.With("wing", "machine"),
		OnChange: func(c machine.Change) { s.recovery.MachineChanged(c) },
	})
	if err != nil {
		return err
	}
	host, err := hostCapacity()
	if err != nil {
		return err
	}
	s.recovery, err = recovery.New(ctx, recovery.Config{
		DB: s.db, Vault: s.vault, Points: pointTaker{s.ingest, s.watch}, Machines: s.machines, Host: host,
		Dir: s.dir.file(instancesDir), Socket: s.dir.file("disks.sock"),
		LogKey: func(id drs.RecoveryInstanceID) ([]byte, error) { return s.dir.key("branch log " + string(id)) },

		DrillNetwork: s.DrillNetwork, RecoveryNetwork: s.RecoveryNetwork,
		MayExtend: s.protection.MayExtend, Quotas: s.limits.quotasOf, MayLead: s.limits.mayLead, Log: s.Log.With("wing", "recovery"),
		JobEnded: func(drs.JobID) { s.plans.Wake() }, // jobs run only after Run has begun, when plans is set
	})
	if err != nil {
		return err
	}
	s.plans = plan.New(s.db, s.recovery, s.Log.With("wing", "plan"), nil)

	pages, err := s.dir.key("pagination")
	if err != nil {
		return err
	}
	s.api, err = drsapi.New(drsapi.Config{
		DB: s.db, Recovery: s.recovery, Protection: s.protection, Plans: s.plans, Networks: s.recovery, Verifier: s.gate.verifier, PageKey: pages, Log: s.Log.With("wing", "api"),
		InstanceType: func(p drs.SourceProperties) string { return convert.InstanceType(p.Cores(), p.RAMBytes) },
		Access:       s.gate.guard, Throttle: throttled(s.throttle), Record: s.recordDRS,
	})
	if err != nil {
		return err
	}
	s.export = s.gate.signed(onServer("ExportDisk"), export.Handler(export.FromVault(s.vault), s.db, caller, s.Log.With("wing", "export")))
	s.templates = s.gate.signed(onNetwork("GetSourceNetworkTemplate"), templateHandler(s.db, s.Log.With("wing", "api")))
	s.vaultWork = s.gate.signed(onVault, vaultHandler(s.upkeep, s.db, s.Log.With("wing", "vault")))
	s.instances = s.gate.signed(onInstance, instanceHandler(s.recovery, s.Log.With("wing", "api")))
	access := &diskAccess{authority: s.dir.Authority, check: export.Check(export.FromVault(s.vault), s.db), log: s.Log.With("wing", "api")}
	if s.disks != nil {
		access.listener = s.disks.listener
	}
	s.diskAccess = s.gate.signed(anyServer("ExportDisk"), access)
	s.metrics = newMetrics(s.db, s.Log)
	s.scrubber = newScrubber(s.dir, s.ScrubDays, func(ctx context.Context, opt vault.VerifyOptions) (vault.VerifyReport, error) {
		opt.Catalogue = s.pointOf
		return vault.Verify(ctx, s.store, s.dir.keys, vault.Options{CacheBytes: 1 << 20}, opt)
	}, s.Log.With("wing", "vault"))
	s.metrics.MustRegister(s.scrubber, s.upkeep, accessMetrics{s})
	if s.cache != nil {
		s.metrics.MustRegister(cacheMetrics{s.cache})
	}
	return nil
}

// advertised is where agents are told to replicate to. A server that listens
// everywhere names only the port: agents use the host that they registered at.
func advertised(listener string) string {
	host, port, err := net.SplitHostPort(listener)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return ":" + port
	}
	return listener
}

// listen opens a TCP port and says what to do when it cannot be had.
func listen(ctx context.Context, address, flag string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program: stop that one, or name another address with %s", address, flag)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: this user may not listen on that port: name another with %s", address, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: this machine does not have that address: name another with %s", address, flag)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return l, nil
}

// hosts are the names and addresses by which clients reach the listeners. One
// that listens everywhere is reached by all addresses of the machine.
func hosts(listeners ...net.Listener) []string {
	var out []string
	for _, l := range listeners {
		address, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		out = append(out, address.IP.String())
		if !address.IP.IsUnspecified() {
			continue
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			continue // the certificate then names fewer hosts, and TLS clients say so
		}
		for _, a := range all {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil {
				out = append(out, ip.String())
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		out = append(out, name)
	}
	return out
}

func apiTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1", "h2"}}
}
