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
  readonly issuerUrl: string;
  /** Namespace of each plane. */
  readonly namespaces: Readonly<Record<string, string>>;
  /** `host:port` inside the cluster. */
  readonly postgres: string;
  readonly temporal: string;
  readonly slm: string;
}

/** One region of the platform: its planes, in the order in which they stand on each other. */
export class Region extends pulumi.ComponentResource {
  readonly endpoints: RegionEndpoints;

  constructor(name: string, args: RegionArgs, opts: PlaneOptions) {
    super('somagent:region:Region', name, {}, opts);
    const charts = new RegionCharts(bridgeApp(), name, args);
    const { transform } = args;
    const namespaces = new ChartDeployment(
      `${name}-namespaces`,
      { chart: charts.namespaces, transform: transform?.namespaces },
      { parent: this, provider: opts.provider },
    );
    const own: PlaneOptions = { parent: this, provider: opts.provider, dependsOn: namespaces };
    const { secrets } = new SystemPlane(`${name}-system`, { ...charts, transform }, own);
    const { databases } = new DataPlane(`${name}-data`, { ...charts, secrets, transform }, own);
    const { realm } = new IdentityPlane(`${name}-identity`, { ...charts, databases, transform }, own);
    const runtime = new RuntimePlane(`${name}-runtime`, { ...charts, secrets, databases, transform }, own);
    const { workflows, model } = runtime;
    new ServicesPlane(`${name}-services`, { ...charts, databases, workflows, model, realm, transform }, own);
    this.endpoints = endpointsOf(name, charts.products, args);
    this.registerOutputs({ ...this.endpoints });
  }
}

function endpointsOf(region: string, products: RegionCharts['products'], args: RegionArgs): RegionEndpoints {
  const { keycloak, postgres, temporal, slm } = products;
  return {
    gatewayUrl: args.gatewayUrl,
    issuerUrl: keycloak.issuer,
    namespaces: Object.fromEntries(planes.map((plane) => [plane, planeNamespace(region, plane)])),
    postgres: `${postgres.host}:${postgres.port}`,
    temporal: `${temporal.host}:${temporal.port}`,
    slm: `${slm.host}:${slm.port}`,
  };
}
