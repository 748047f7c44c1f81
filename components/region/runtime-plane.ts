import type { ChartDeployment } from '../bridge/index.ts';
import type { DataPlane } from './data-plane.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link RuntimePlane}. */
export interface RuntimePlaneArgs extends PlaneArgs {
  readonly secrets: ChartDeployment;
  readonly data: DataPlane;
}

/** What agent work runs on: durable workflows, and a model. The model needs no database, so it starts at once. */
export class RuntimePlane extends Plane {
  /** Works when workflows can be started in the platform's namespace. */
  readonly workflows: ChartDeployment;
  /** Works when the model answers. */
  readonly model: ChartDeployment;
  /** Works when sentences become vectors. */
  readonly embeddings: ChartDeployment;

  constructor(name: string, args: RuntimePlaneArgs, opts: PlaneOptions) {
    super('somagent:region:RuntimePlane', name, args, opts);
    this.model = this.deploy('slm', [args.secrets]);
    this.embeddings = this.deploy('embeddings', [args.secrets]);
    this.workflows = this.deploy('temporal', [args.data.databases]);
    this.registerOutputs({});
  }
}
