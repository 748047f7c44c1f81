import {
  Bootstrap,
  Gateway,
  Keycloak,
  Orchestrator,
  Postgres,
  RegionChart,
  RegionNamespaces,
  SecretPlan,
  Slm,
  Temporal,
} from '@somagent/constructs';
import type { App } from 'cdk8s';
import type { RegionArgs } from './region-args.ts';

/** Names of the databases that a region's products own. */
const databases = [
  { name: 'temporal', owner: 'temporal' },
  { name: 'temporal_visibility', owner: 'temporal' },
  { name: 'keycloak', owner: 'keycloak' },
  { name: 'sessions', owner: 'sessions' },
];

/**
 * All products of a region, wired to each other. They are constructed before the first one is synthesized: a product
 * that is constructed later may still widen the policies, grants and secrets of an earlier one.
 */
export class RegionCharts {
  readonly namespaces: RegionNamespaces;
  readonly bootstrap: RegionChart;
  readonly postgres: RegionChart;
  readonly keycloak: RegionChart;
  readonly temporal: RegionChart;
  readonly slm: RegionChart;
  readonly orchestrator: RegionChart;
  readonly gateway: RegionChart;
  readonly products: RegionProducts;

  constructor(app: App, region: string, args: RegionArgs) {
    this.namespaces = new RegionNamespaces(app, 'namespaces', { region });
    this.postgres = new RegionChart(app, 'postgres', { region, plane: 'data' });
    this.keycloak = new RegionChart(app, 'keycloak', { region, plane: 'identity' });
    this.temporal = new RegionChart(app, 'temporal', { region, plane: 'runtime' });
    this.slm = new RegionChart(app, 'slm', { region, plane: 'runtime' });
    this.orchestrator = new RegionChart(app, 'orchestrator', { region, plane: 'services' });
    this.gateway = new RegionChart(app, 'gateway', { region, plane: 'services' });
    const plan = new SecretPlan(region);
    this.products = this.#products(plan, args);
    // Last: it closes the plan of secrets that all others have added to.
    this.bootstrap = new RegionChart(app, 'bootstrap', { region, plane: 'system' });
    new Bootstrap(this.bootstrap, 'bootstrap', { image: args.image('bootstrap'), plan, ...apiServer(args) });
  }

  #products(plan: SecretPlan, args: RegionArgs): RegionProducts {
    const { image, size } = args;
    const bootstrapImage = image('bootstrap');
    const postgres = new Postgres(this.postgres, 'postgres', {
      image: image('postgres'),
      bootstrapImage,
      plan,
      databases,
      members: size.postgresMembers,
      storage: size.postgresStorage,
      ...(args.storageClass !== undefined && { storageClass: args.storageClass }),
      ...apiServer(args),
    });
    const keycloak = new Keycloak(this.keycloak, 'keycloak', {
      image: image('keycloak'),
      bootstrapImage,
      plan,
      database: postgres.database('keycloak'),
      hostname: args.identityUrl,
      realm: args.realm,
      replicas: size.keycloakReplicas,
      ...reachable(args.identityUrl, args.identityNodePort),
    });
    const temporal = new Temporal(this.temporal, 'temporal', {
      image: image('temporal'),
      bootstrapImage,
      plan,
      database: postgres.database('temporal'),
      visibility: postgres.database('temporal_visibility'),
      numHistoryShards: size.temporalShards,
      replicas: size.temporalReplicas,
    });
    const slm = new Slm(this.slm, 'slm', {
      image: image('ray-slm'),
      plan,
      renderer: args.rayRenderer,
      workers: size.slmWorkers,
    });
    const session = { plan, temporal, database: postgres.database('sessions') };
    const orchestrator = new Orchestrator(this.orchestrator, 'orchestrator', {
      ...session,
      image: image('orchestrator'),
      slm,
      replicas: size.orchestratorReplicas,
    });
    const gateway = new Gateway(this.gateway, 'gateway', {
      ...session,
      image: image('gateway'),
      identity: keycloak,
      replicas: size.gatewayReplicas,
      ...reachable(args.gatewayUrl, args.gatewayNodePort),
    });
    return { postgres, keycloak, temporal, slm, orchestrator, gateway };
  }
}

/** The wired products of a region; what other components and the outputs read addresses from. */
export interface RegionProducts {
  readonly postgres: Postgres;
  readonly keycloak: Keycloak;
  readonly temporal: Temporal;
  readonly slm: Slm;
  readonly orchestrator: Orchestrator;
  readonly gateway: Gateway;
}

function apiServer({ apiServerCidrs: cidrs }: RegionArgs) {
  return cidrs === undefined ? {} : { apiServer: { cidrs } };
}

const ipAddress = /^\d{1,3}(?:\.\d{1,3}){3}$/;

/** Under which names a server's certificate must be good, and the port by which it leaves the cluster. */
function reachable(url: string, nodePort: number | undefined) {
  const { hostname } = new URL(url);
  const local = hostname === 'localhost' ? ['127.0.0.1'] : [];
  return {
    certificateNames: ipAddress.test(hostname) ? [] : [hostname],
    certificateAddresses: ipAddress.test(hostname) ? [hostname] : local,
    ...(nodePort !== undefined && { exposure: { nodePort } }),
  };
}
