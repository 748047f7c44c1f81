import type { ChartDeployment } from '../bridge/index.ts';
import type { DataPlane } from './data-plane.ts';
import type { IdentityPlane } from './identity-plane.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';
import type { RuntimePlane } from './runtime-plane.ts';

/** Arguments of {@link ServicesPlane}. */
export interface ServicesPlaneArgs extends PlaneArgs {
  readonly data: DataPlane;
  readonly identity: IdentityPlane;
  readonly runtime: RuntimePlane;
}

/** Our own services: the workers of sessions, and the door for clients, which opens last. */
export class ServicesPlane extends Plane {
  readonly workers: ChartDeployment;
  /** Works when a client with a token can start a session. */
  readonly gateway: ChartDeployment;

  constructor(name: string, args: ServicesPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:ServicesPlane', name, args, opts);
    const { data, identity, runtime } = args;
    this.workers = this.deploy('orchestrator', [data.databases, runtime.workflows, runtime.model]);
    this.gateway = this.deploy('gateway', [this.workers, identity.realm]);
    this.registerOutputs({});
  }
}
