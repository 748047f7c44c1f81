import * as pulumi from '@pulumi/pulumi';
import { planeNamespace, planes } from '@somagent/constructs';
import { bridgeApp, ChartDeployment } from '../bridge/index.ts';
import { DataPlane } from './data-plane.ts';
import { IdentityPlane } from './identity-plane.ts';
import type { PlaneOptions } from './plane.ts';
import type { RegionArgs } from './region-args.ts';
import { RegionCharts } from './region-charts.ts';
import { RuntimePlane } from './runtime-plane.ts';
import { ServicesPlane } from './services-plane.ts';
import { SystemPlane } from './system-plane.ts';

/** Where the parts of a region answer, inside the cluster and outside. */
export interface RegionEndpoints {
  readonly gatewayUrl: string;
  readonly accountsUrl: string;
  readonly auditUrl: string;
  readonly memoryUrl: string;
  readonly analyticsUrl: string;
  readonly trainingUrl: string;
  readonly issuerUrl: string;
  /** Namespace of each plane. */
  readonly namespaces: Readonly<Record<string, string>>;
  /** `host:port` inside the cluster. */
  readonly postgres: string;
  readonly temporal: string;
  readonly slm: string;
  readonly kafka: string;
}

/** One region of the platform: its planes, in the order in which they stand on each other. */
export class Region extends pulumi.ComponentResource {
  readonly endpoints: RegionEndpoints;

  constructor(name: string, args: RegionArgs, opts: PlaneOptions) {
    super('somagent:region:Region', name, {}, opts);
    const { namespaces, charts, products } = new RegionCharts(bridgeApp(), name, args);
    const { transform } = args;
    const wired = { charts, transform };
    const made = new ChartDeployment(
      `${name}-namespaces`,
      { chart: namespaces, transform: transform?.namespaces },
      { parent: this, provider: opts.provider },
    );
    const own: PlaneOptions = { parent: this, provider: opts.provider, dependsOn: made };
    const { secrets } = new SystemPlane(`${name}-system`, wired, own);
    const data = new DataPlane(`${name}-data`, { ...wired, secrets }, own);
    const identity = new IdentityPlane(`${name}-identity`, { ...wired, secrets, data }, own);
    const runtime = new RuntimePlane(`${name}-runtime`, { ...wired, secrets, data }, own);
    new ServicesPlane(`${name}-services`, { ...wired, data, identity, runtime }, own);
    this.endpoints = endpointsOf(name, products, args);
    this.registerOutputs({ ...this.endpoints });
  }
}

function endpointsOf(region: string, products: RegionCharts['products'], args: RegionArgs): RegionEndpoints {
  const { keycloak, postgres, temporal, slm, kafka } = products;
  return {
    gatewayUrl: args.gatewayUrl,
    accountsUrl: args.accountsUrl,
    auditUrl: args.auditUrl,
    memoryUrl: args.memoryUrl,
    analyticsUrl: args.analyticsUrl,
    trainingUrl: args.trainingUrl,
    issuerUrl: keycloak.issuer,
    namespaces: Object.fromEntries(planes.map((plane) => [plane, planeNamespace(region, plane)])),
    postgres: `${postgres.host}:${postgres.port}`,
    temporal: `${temporal.host}:${temporal.port}`,
    slm: `${slm.host}:${slm.port}`,
    kafka: kafka.bootstrapServers,
  };
}
