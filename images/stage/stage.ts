/** What a stage function gets to fill the build context of an image. */
export interface Stage {
  /** Build context to fill; it has the image's own folder already. */
  readonly folder: string;
  /** Log file of this image. */
  readonly log: string;
  /** Root of the repository. */
  readonly repository: string;
}
