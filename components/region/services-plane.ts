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
  /** Works when it can be asked who is suspended or halted. */
  readonly accounts: ChartDeployment;
  /** Works when events become entries of the log. */
  readonly audit: ChartDeployment;
  /** Works when relations follow accounts and sessions. */
  readonly relations: ChartDeployment;
  /** Works when memories can be stored and found. */
  readonly memory: ChartDeployment;
  /** Works when events become figures. */
  readonly analytics: ChartDeployment;
  readonly workers: ChartDeployment;
  /** Works when a client with a token can start a session. */
  readonly gateway: ChartDeployment;

  constructor(name: string, args: ServicesPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:ServicesPlane', name, args, opts);
    const { data, identity, runtime } = args;
    const ground = [data.databases, data.topics, data.schemas, identity.policies];
    this.accounts = this.deploy('identity', [...ground, identity.realm]);
    this.audit = this.deploy('audit', [...ground, identity.witness, this.accounts]);
    this.memory = this.deploy('memory-gateway', [
      ...ground,
      ...[data.vectors, runtime.embeddings, runtime.model],
      ...[identity.realm, identity.relations, this.accounts],
    ]);
    this.analytics = this.deploy('analytics', [...ground, data.figures, this.accounts]);
    this.workers = this.deploy('orchestrator', [...ground, runtime.workflows, runtime.model, this.accounts]);
    // Its role in the database of sessions gets its rights from the orchestrator's migrations.
    this.relations = this.deploy('relations', [identity.relations, this.workers]);
    this.deploy('training', [data.buckets, this.workers]);
    this.deploy('scaler', [this.workers]);
    this.gateway = this.deploy('gateway', [this.workers, this.relations, identity.realm]);
    this.registerOutputs({});
  }
}
