import type { RegionChart } from '@somagent/constructs';
import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link ServicesPlane}. */
export interface ServicesPlaneArgs extends PlaneArgs {
  readonly orchestrator: RegionChart;
  readonly gateway: RegionChart;
  readonly databases: ChartDeployment;
  readonly workflows: ChartDeployment;
  readonly model: ChartDeployment;
  readonly realm: ChartDeployment;
}

/** Our own services: the workers of sessions, and the door for clients, which opens last. */
export class ServicesPlane extends Plane {
  readonly workers: ChartDeployment;
  /** Works when a client with a token can start a session. */
  readonly gateway: ChartDeployment;

  constructor(name: string, args: ServicesPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:ServicesPlane', name, args, opts);
    this.workers = this.deploy('orchestrator', args.orchestrator, [args.databases, args.workflows, args.model]);
    this.gateway = this.deploy('gateway', args.gateway, [this.workers, args.realm]);
    this.registerOutputs({});
  }
}
